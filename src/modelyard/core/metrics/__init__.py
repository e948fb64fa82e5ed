"""Every metric, declared once: what it means, its unit, its labels and who tells it.

`declaration` says what a declaration is; `gateway`, `controller` and `engines` hold them;
`vocabularies` says which names of vLLM, SGLang and llama.cpp mean which of ours;
`catalogue` lists them all. docs/metrics.md is written from here.
"""
