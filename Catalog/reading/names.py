"""Names of objects below a cluster (FORMAT.md, section 1)."""

import re

LABEL = r"\d{8}T\d{6}Z-(?:full|delta)-[0-9a-z]{4}"
SYSTEM = r"[0-9]{1,20}"
SEGMENT = r"[0-9A-F]{24}"
TAG = r"[0-9a-f]{32}"
ID = re.compile(r"[0-9a-f]{32}")
COMPONENT = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,255}")
KINDS = [  # number, what the record calls itself, name below the cluster
    (1, "registration", rf"system/{SYSTEM}"),
    (2, None, rf"wal/{SYSTEM}/[0-9A-F]{{8}}/[0-9A-F]{{8}}/{SEGMENT}(\.partial-{TAG}|-{TAG})?"),
    (2, None, rf"wal/{SYSTEM}/history/([0-9A-F]{{8}}\.history|{SEGMENT}\.[0-9A-F]{{8}}\.backup)"),
    (3, None, r"pack/([0-9a-f]{2})/\1[0-9a-f]{30}"),
    (4, "manifest", rf"backup/{LABEL}/manifest"),
    (5, "commit-record", rf"catalog/backup/{LABEL}"),
    (6, "intent", rf"catalog/intent/{LABEL}"),
    (7, "condemned", rf"catalog/(?:condemned|removing)/{LABEL}"),
    (8, "proof", rf"catalog/proof/{LABEL}/\d{{8}}T\d{{6}}Z-(?:verified|drilled)-(?:passed|failed)"),
    (9, "pin", rf"catalog/pin/{LABEL}"),
    (11, "gap", rf"catalog/gap/{SYSTEM}/{SEGMENT}-{SEGMENT}"),
    (10, "lease", r"lease/[A-Za-z0-9._-]+"),
]
