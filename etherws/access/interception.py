"""Who intercepts TLS, by the name that it writes into the certificates which it makes.

Pure: names of products and of public authorities. A name proves nothing; it is a good first guess. Read next:
client/attempt.py and check/path/secure.py, which ask.
"""

from __future__ import annotations

#: A part of an issuer's name, in lower case: what it is the name of. These products make a certificate for each server
#: that is visited. Each name is that of the product's own authority as it comes, or of its maker.
_PRODUCTS = {
    "zscaler": "Zscaler",
    "netskope": "Netskope",
    "goskope": "Netskope",
    "fortinet": "Fortinet FortiGate",
    "fortigate": "Fortinet FortiGate",
    "palo alto": "Palo Alto Networks",
    "blue coat": "Symantec (Blue Coat) ProxySG",
    "bluecoat": "Symantec (Blue Coat) ProxySG",
    "proxysg": "Symantec (Blue Coat) ProxySG",
    "cisco umbrella": "Cisco Umbrella",
    "opendns": "Cisco Umbrella",
    "ironport": "Cisco Secure Web Appliance",
    "forcepoint": "Forcepoint",
    "websense": "Forcepoint",
    "mcafee": "Skyhigh (McAfee) Web Gateway",
    "skyhigh": "Skyhigh (McAfee) Web Gateway",
    "check point": "Check Point",
    "checkpoint": "Check Point",
    "sophos": "Sophos",
    "barracuda": "Barracuda",
    "watchguard": "WatchGuard",
    "fireware": "WatchGuard",
    "sonicwall": "SonicWall",
    "untangle": "Untangle",
    "smoothwall": "Smoothwall",
    "lightspeed": "Lightspeed Systems",
    "securly": "Securly",
    "iboss": "iboss",
    "contentkeeper": "ContentKeeper",
    "cato networks": "Cato Networks",
    "menlo": "Menlo Security",
    "sangfor": "Sangfor",
    "gateway ca - cloudflare": "Cloudflare Gateway",
    "trend micro": "Trend Micro",
    "squid": "Squid (ssl_bump)",
    "pfsense": "pfSense",
    "opnsense": "OPNsense",
    "kaspersky": "Kaspersky",
    "avast": "Avast",
    "avg web": "AVG",
    "eset": "ESET",
    "bitdefender": "Bitdefender",
    "adguard": "AdGuard",
    "dr.web": "Dr.Web",
    "mitmproxy": "mitmproxy",
    "portswigger": "Burp Suite",
    "fiddler": "Fiddler",
    "charles proxy": "Charles",
    "proxyman": "Proxyman",
    "superfish": "Superfish",
}

#: Parts of the names of authorities that browsers trust, in lower case: those that have issued nearly all certificates.
_PUBLIC = (
    *("let's encrypt", "internet security research group", "google trust services", "digicert", "sectigo", "comodo"),
    *("usertrust", "zerossl", "globalsign", "amazon", "godaddy", "starfield", "entrust", "identrust", "microsoft"),
    *("ssl.com", "ssl corp", "buypass", "certum", "asseco", "unizeto", "swisssign", "actalis", "harica", "hellenic"),
    *("telesec", "t-systems", "deutsche telekom", "d-trust", "quovadis", "network solutions", "trustwave", "secom"),
    *(
        "cybertrust",
        "apple",
        "ssl com",
        "geotrust",
        "thawte",
        "rapidssl",
        "verisign",
        "encryption everywhere",
        "wisekey",
    ),
    *(
        "firmaprofesional",
        "certigna",
        "e-tugra",
        "twca",
        "taiwan-ca",
        "chunghwa",
        "wotrus",
        "trustasia",
        "hongkong post",
    ),
    *("cloudflare inc", "cloudflare, inc", "geant vereniging", "trust provider", "gandi", "sslcom", "emsign", "oiste"),
)


def product(issuers: list[str]) -> str:
    """The product that has made a chain of certificates, by the whole names of its issuers; empty if none is known."""
    for issuer in issuers:
        name = issuer.lower()
        # A public authority of the same maker, or for a customer's name, is none of these.
        found = next((shown for part, shown in _PRODUCTS.items() if _has(name, part)), "")
        if found and not is_public([issuer]):
            return found
    return ""


def is_public(issuers: list[str]) -> bool:
    """Whether one of these issuers is an authority that browsers trust, by its whole name."""
    return any(part in issuer.lower() for issuer in issuers for part in _PUBLIC)


def _has(name: str, part: str) -> bool:
    """Whether a name has this part as a word, or words: "eset" is not in "reset"."""
    at = name.find(part)
    return at >= 0 and not name[at - 1 : at].isalnum()
