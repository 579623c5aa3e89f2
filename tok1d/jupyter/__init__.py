"""What notebooks need: parameters, headless execution, tables, widgets, the static report.

jsonschema, which checks each notebook, takes a second to import `rfc3987_syntax` (a grammar of web addresses
in any alphabet, which no notebook is checked for), so here it is as if that were not installed.
"""

import sys

if "jsonschema" not in sys.modules:
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
