# What people type; each recipe is one script, and CI runs the same scripts.

# list the recipes
default:
    @just --list

# a Bridge, two Routers and two devices on this machine, with real images
demo:
    scripts/demo

# everything that CI checks; `just test --all` at full sizes, `just test tests/dicom` in part
test *arguments:
    scripts/test {{ arguments }}

# ruff and mypy alone
lint:
    scripts/lint

# dist/relay: one executable file that needs no Python
binary:
    scripts/binary

# the three ways of docs/installing.md, on machines made for it: one file, systemd, a container
installed *ways:
    scripts/installed {{ ways }}

# objects/s, MB/s and latencies beside DICOM without Relay
bench *arguments:
    scripts/bench {{ arguments }}

# docs/rest.md's reference, from the tables that the processes serve from
reference:
    bash -c 'source scripts/environment && environment && python -m scripts.rest_reference'
