"""Training of networks whose weights live in small dictionaries (LUT-Q, arXiv 1811.05355).

A *dictionary* is the few values that the weights of a layer may take; the *assignments* say which one each takes.

    recipe.toml --fit--> run folder --export--> model.npz, integers only, for lutq_hw

    recipe  data  models  dictionary  quantizer  activation  augment  loop  run     fold  export  verify     cli
    `------------------------- training -------------------------------'     `---- to integers ----'
"""
