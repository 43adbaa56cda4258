__version__ = "0.1.0"

# The one module that nbdev does not make, only keeps the version in.
import warnings

# tqdm's remark when a library is imported in a notebook without ipywidgets: bars as text are wanted there.
warnings.filterwarnings("ignore", message="IProgress not found")
