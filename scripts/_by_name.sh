# Sourced by scripts/bench and scripts/soak: run_by_name FOLDER WHAT NAME ARGUMENTS…
# runs FOLDER/NAME.py in .venv, or lists the names when none is given.
run_by_name() {
  local folder="$1" what="$2" name="${3:-}"
  if [ -z "$name" ] || [ ! -f "$folder/$name.py" ]; then
    [ -z "$name" ] || echo "error: there is no $what named $name" >&2
    echo "usage: scripts/$(basename "$0") NAME [ARGUMENTS]; $what names:" >&2
    local file line
    for file in "$folder"/[!_]*.py; do
      [ -f "$file" ] || continue
      line="$(sed -n '1s/^"""//p' "$file" | sed 's/"""$//')"
      printf '  %-24s %s\n' "$(basename "$file" .py)" "$line" >&2
    done
    [ -z "$name" ] && exit 0
    exit 2
  fi
  scripts/setup --dev
  shift 3
  exec .venv/bin/python -m "$(echo "$folder" | tr / .).$name" "$@"
}
