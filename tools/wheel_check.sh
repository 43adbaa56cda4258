#!/usr/bin/env bash
# Does the command line run where only the wheel and its dependencies are installed? For real, in a fresh environment.
#     tools/wheel_check.sh PYTHON      (PYTHON builds the wheel; the environment is made in a temporary folder and removed)
set -euo pipefail
builder=$(realpath -s "$1")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH
cp -r "$root"/{settings.ini,setup.py,MANIFEST.in,README.md,LICENSE,constraints.txt,genaug,nbs} "$work"
(cd "$work" && "$builder" -m build --no-isolation --outdir dist . > build.log 2>&1) || { tail -n 40 "$work/build.log"; exit 1; }
ls -l "$work/dist"
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check install --quiet -c "$root/constraints.txt" "$work"/dist/*.whl
mkdir "$work/elsewhere" && cd "$work/elsewhere"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$work/venv/bin/python" -c "import genaug.core, sys; assert 'nbdev' not in sys.modules; print('genaug from', genaug.core.__file__.split('site-packages')[-1])"
if "$work/venv/bin/python" -c "import nbdev" 2>/dev/null; then echo "nbdev came with the wheel: it must not be needed at run time"; exit 1; fi
"$work/venv/bin/genaug" --help
"$work/venv/bin/genaug" check digits
"$work/venv/bin/genaug" augment digits out --method "diff-ii@naming.steps=2;num_inference_steps=4" --copies 1 --shots 2
"$work/venv/bin/genaug" report out
ls -R out | head -n 30
echo "wheel-check: the command line runs from the wheel and its dependencies alone"
