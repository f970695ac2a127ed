r"""A docstring for the terminal: its markup taken off, its TeX as formulas that can be read.

``:math:`\beta_1 m``` is β_1 m, ``\frac{a}{b + c}`` is (a / (b + c)), and so on.
"""

import re

SIGNS = {
    **{"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η"},
    **{"theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "rho": "ρ", "sigma": "σ"},
    **{"tau": "τ", "phi": "φ", "psi": "ψ", "omega": "ω", "Delta": "Δ", "Pi": "Π", "sqrt": "√"},
    **{"leftarrow": "←", "le": "≤", "pm": "±", "times": "×", "cdot": "·", "approx": "≈"},
    **{"sum": "∑", "partial": "∂", "infty": "∞", "in": "∈", "dots": "...", "cdots": "..."},
    **{"langle": "⟨", "rangle": "⟩", "lceil": "⌈", "rceil": "⌉", "lfloor": "⌊", "rfloor": "⌋"},
    **{"lVert": "‖", "rVert": "‖", "|": "‖", "_": "_", "left": "", "right": "", "\\": ""},
    **{"max": "max", "min": "min", "exp": "exp", "{": "\x01", "}": "\x02"},
    **{"quad": "\x03", "qquad": "\x03", ",": "", ";": " ", " ": " ", "\n": "\n"},
}
ACCENTS = {"bar": "\u0304", "hat": "\u0302", "tilde": "\u0303"}  # put after the letter
GROUP = r"\s*\{([^{}]*)\}"  # the innermost come first
BLOCK = r"^\.\. math::(?: (.+)|\n\n((?:    .*\n|\n)+))"


def plain(text: str) -> str:
    """The docstring without markup."""
    text += "\n"
    text = re.sub(BLOCK, lambda m: f"    {formula(m[1] or m[2]).strip()}\n\n", text, flags=re.M)
    text = re.sub(r":math:`([^`]*)`", lambda m: formula(m[1]), text)
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"``([^`]*)``", r"\1", text)).rstrip()


def formula(tex: str) -> str:
    """TeX in characters; the lines stay."""
    tex = re.sub(r"\\([a-zA-Z]+|.|\n)", lambda m: SIGNS.get(m[1], m[0]), tex.replace("&", ""))
    tex = re.sub(r"\\(bar|hat|tilde)\s*(\w)", lambda m: m[2] + ACCENTS[m[1]], tex)
    before = ""
    while tex != before:
        before = tex
        tex = re.sub(rf"\\(?:mathrm|text){GROUP}", r"\1", tex)
        tex = re.sub(rf"([_^√]){GROUP}", lambda m: m[1] + grouped(m[2]), tex)
        tex = re.sub(rf"\\t?frac{GROUP}{GROUP}", lambda m: fraction(m[1], m[2]), tex)
    tex = re.sub(r"\\t?frac\s*(\w)\s*(\w)", lambda m: fraction(m[1], m[2]), tex)
    tex = re.sub(r"(?<=\S) +", " ", re.sub(r"√ (?=\w)", "√", tex))
    tex = re.sub(r"^( *)\x03 *", r"\1", tex, flags=re.M)
    tex = re.sub(r" *\x03 *", "  ", tex).replace("\x01", "{").replace("\x02", "}")
    return re.sub(r" +$", "", tex, flags=re.M)


def fraction(above: str, below: str) -> str:
    return f"({grouped(above)} / {grouped(below)})"


def grouped(tex: str) -> str:
    """In brackets, unless it is one word."""
    tex = " ".join(tex.split())
    return tex if re.fullmatch(r"\(?[\w\u0302-\u0304']+\)?", tex) else f"({tex})"
