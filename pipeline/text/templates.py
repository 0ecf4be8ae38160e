"""Questions that several methods ask, as in the papers' own code, with the study's words in place of theirs.

CoLLM's and BinLLM's prompt files, github.com/zyang1580/CoLLM and /BinLLM.
"""

TEXT_ONLY = (
    "#Question: A user has given high ratings to the following {items}: {liked:titles}. Leverage the "
    "information to predict whether the user would {enjoy} the {item} titled {target:title}? "
    'Answer with "Yes" or "No". \n#Answer:'
)
