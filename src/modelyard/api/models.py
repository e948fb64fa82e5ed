"""Registered versions: read, page by page, and their aliases moved. Bytes move by the command line.

Everything here is read from small files of the home; only a move, and the history, which takes
over what was moved in MLflow, speak to the catalogue.
"""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query

from modelyard.api.messages import (
    AliasHistory,
    AliasMoveView,
    AliasView,
    AliasWish,
    FactsView,
    Family,
    FamilyMember,
    FileView,
    ModelDetails,
    ModelPage,
    ModelView,
    RecipeView,
)
from modelyard.api.parts import ApiParts
from modelyard.core.deployments import Event
from modelyard.core.refs import Ref, check_name
from modelyard.registry.aliases import AliasMove
from modelyard.registry.versions import ModelVersion, Recipe


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    routes = APIRouter(prefix="/api/models")
    registry = parts.registry

    @routes.get("")
    def list_versions(
        name: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: str | None = None,
    ) -> ModelPage:
        page = registry.page(name, limit=limit, after=after)
        models = tuple(_model(version) for version in page.versions)
        return ModelPage(models=models, total=page.total, next=page.next)

    @routes.get("/{ref}")
    def show(ref: str) -> ModelDetails:
        version = registry.get(ref)
        return ModelDetails(
            model=_model(version),
            recipe=_recipe(version.recipe),
            children=registry.children(str(version)),
            files=tuple(
                FileView(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes)
                for file in version.manifest.files
            ),
        )

    @routes.get("/{ref}/lineage")
    def lineage(ref: str) -> Family:
        return Family(
            family=tuple(
                FamilyMember(
                    digest=node.digest,
                    depth=node.depth,
                    versions=node.versions,
                    recipe=_recipe(node.recipe),
                    asked=node.asked,
                )
                for node in registry.lineage(ref)
            )
        )

    @routes.get("/{name}/history")
    def history(name: str, at: float | None = None) -> AliasHistory:
        found = registry.history(name, at=at)
        moves = tuple(_move(move) for move in found.moves)
        return AliasHistory(
            name=found.name, aliases=found.aliases, moves=moves, warnings=found.warnings
        )

    @routes.put("/{name}/aliases/{alias}")
    def set_alias(name: str, alias: str, wish: AliasWish) -> AliasView:
        ref = Ref(check_name(name), version=wish.version)
        warnings = registry.set_alias(ref, alias, reason=wish.reason)
        event = Event(
            at=parts.clock(),
            kind="alias.moved",
            subject=f"{name}@{alias}",
            actor="user:admin",
            message=f"means {ref}",
        )
        parts.store.events.append(event)
        return AliasView(name=name, alias=alias, version=wish.version, warnings=warnings)

    return routes


def _model(version: ModelVersion) -> ModelView:
    return ModelView(
        name=version.name,
        version=version.version,
        digest=version.digest,
        aliases=version.aliases,
        parent=version.parent,
        facts=FactsView(**msgspec.to_builtins(version.facts)),
        metrics=version.metrics,
        size_bytes=version.size_bytes,
        created_at=version.created_at,
        quarantined=version.quarantined,
    )


def _recipe(recipe: Recipe | None) -> RecipeView | None:
    return None if recipe is None else RecipeView(**msgspec.to_builtins(recipe))


def _move(move: AliasMove) -> AliasMoveView:
    return AliasMoveView(
        at=move.at,
        alias=move.alias,
        version=move.version,
        actor=move.actor,
        reason=move.reason,
        origin=move.origin,
    )
