"""A second verifier of certificates of provenance: shares no code with the project, needs only `cryptography`.

python verify_certificate.py CERTIFICATE.json GENESIS.json

It trusts the genesis file and nothing else: no node, no network, no database. docs/certificates.md says what it checks.
Exit status: 0 the certificate is true, 1 it is refused (the reason is on stderr), 2 wrong usage.
"""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import pairwise
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

BYTES_MAX = 32 * 1024 * 1024
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
NOTHING = bytes(32)  # the hash of an empty part of the state trie
# Points of small order: signatures that use one are refused on the chain (libsodium), OpenSSL would take them.
PRIME = 2**255 - 19
ORDER_8 = int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little")
SMALL_ORDER = {
    (y | sign << 255).to_bytes(32, "little") for y in (0, 1, PRIME - 1, ORDER_8, PRIME - ORDER_8) for sign in (0, 1)
}

# Every object with its fields in the order in which they are packed; ? may be null, [] an array of it.
SHAPES_TEXT = """
genesis: chain_id text, time_ms int, validators validator[], participants founder[], parameters parameters
validator: public_key key, moniker text
founder: public_key key, label text, roles text[], credit_limit_cents int
parameters: transaction_lifetime_blocks int, block_transactions_max int, block_bytes_max int, reading_skew_s int,
    reading_margin_percent int, lot_lifetime_s int, matching_period_s int, escrow_silence_s int,
    dispute_deadline_s int, zone_pairs zones[]
header: version int, chain_id text, height int, time_ms int, parent_id hash, proposer key, transactions_count int,
    transactions_root hash, events_root hash, state_root hash, validators_hash hash, next_validators_hash hash
commit: round int, signatures precommit[]
precommit: voter key, signature signature
change: header header, commit commit, next_validators validator[]
lot_id: meter id, start_ms int, version int
slice_ref: lot lot_id, first_wh int, end_wh int
claim: claimant address, beneficiary address, purpose text, statement text, period_start_ms int, period_end_ms int,
    slices slice_ref[], wh int, consumption_meter id?, claimed_ms int, status text, kind text, replaces id?
participant: public_key key, roles text[], label text, registrar address?, registered_ms int, kyc text, is_frozen bool
site: owner address, utility address, technology text, zone text, capacity_w int, label text, commissioned_ms int,
    design_document document?, shares share[], since_ms int, efficiency_per_mille int
meter: site id, utility address, serial text, key meter_key, channels channel[], commissioned_ms int, status text,
    status_since_ms int, key_since_ms int
channel: channel text, capacity_w int, interval_s int
report: start_ms int, interval_s int, values_wh int[], register_start_wh int, register_end_wh int, flag text,
    sequence int, quarantined int[], tx_id hash
mint: site id, technology text, zone text, start_ms int, interval_s int, version int, wh int[], shares share[]
reissue: site id, technology text, zone text, interval_s int, wh int, shares share[], predecessor int
correction: wh int, flag text, is_quarantined bool, reason text, corrected_by address, corrected_ms int, tx_id hash
slices: slices slice[]
slice: first_wh int, end_wh int, holder address, status text, reference reference
sources: sources source[]
source: charge id, end_ms int, wh int
chain_part: chain_id text, genesis_hash hash
claim_part: claim id, record claim
holding_part: holder address, slices slice_ref[]
participant_part: address address, record participant
site_part: site id, record site
meter_part: meter id, record meter
report_part: meter id, key meter_key, signature signature, record report, mint mint?
lot_part: lot lot_id, slices slices?, reissue reissue?, correction correction?, sources sources?
state_part: nodes node[], buckets bucket[]
certificate: format text, version int, id hash, chain chain_part, claim claim_part?, holding holding_part?,
    parameters parameters?, participants participant_part[], sites site_part[], meters meter_part[],
    reports report_part[], lots lot_part[], charges claim_part[], state state_part, header header, commit commit,
    validator_changes change[]
"""
SHAPES = {
    line.partition(": ")[0]: dict(field.split() for field in line.partition(": ")[2].split(","))
    for line in SHAPES_TEXT.replace(",\n", ",").strip().split("\n")
}
PAIRS = {"share": ("address", "int"), "zones": ("text", "text")}
BYTES = {"id": (16, 16), "hash": (32, 32), "key": (32, 32), "meter_key": (32, 33), "signature": (64, 64)}
BYTES |= {"reference": (0, 16), "document": (1, 64), "node": (34, 514), "bucket": (64, 2048)}  # fewest, most


class Refused(Exception):
    """The certificate is not true, or is none; the text is the reason."""


def need(holds, reason):
    if not holds:
        raise Refused(reason)


def check_rising(keys):
    need(all(before < after for before, after in pairwise(keys)), "certificate_list_not_in_order")


def sha256(data):
    return hashlib.sha256(data).digest()


# — the one byte form: msgpack of nil, booleans, natural numbers, bytes, text and arrays, always the shortest —


def pack(value):
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        size, code = next(pair for pair in ((1, 0xCC), (2, 0xCD), (4, 0xCE), (8, 0xCF)) if value < 256 ** pair[0])
        return bytes([value] if value < 128 else [code]) + (b"" if value < 128 else value.to_bytes(size, "big"))
    if isinstance(value, bytes):
        return pack_head(len(value), None, (0xC4, 0xC5, 0xC6)) + value
    if isinstance(value, str):
        raw = value.encode(errors="surrogatepass")  # such a text has another hash than any on the chain
        return pack_head(len(raw), (0xA0, 32), (0xD9, 0xDA, 0xDB)) + raw
    return pack_head(len(value), (0x90, 16), (None, 0xDC, 0xDD)) + b"".join(map(pack, value))


def pack_head(count, short, codes):
    if short is not None and count < short[1]:
        return bytes([short[0] + count])
    size, code = next((size, code) for size, code in zip((1, 2, 4), codes, strict=True) if code and count < 256**size)
    return bytes([code]) + count.to_bytes(size, "big")


def read(kind, value):
    """The packable form of a JSON value of this kind."""
    if kind.endswith("?"):
        return None if value is None else read(kind[:-1], value)
    if kind.endswith("[]"):
        need(type(value) is list, "field_has_wrong_type")
        return [read(kind[:-2], item) for item in value]
    if kind in PAIRS:
        need(type(value) is list and len(value) == 2, "array_length_out_of_range")
        return [read(part, item) for part, item in zip(PAIRS[kind], value, strict=True)]
    if kind in SHAPES:
        need(type(value) is dict, "field_has_wrong_type")
        need(set(value) <= set(SHAPES[kind]), "field_unknown")
        need(set(value) == set(SHAPES[kind]), "field_missing")
        return [read(part, value[name]) for name, part in SHAPES[kind].items()]
    return read_scalar(kind, value)


def read_scalar(kind, value):
    need(type(value) is {"int": int, "bool": bool}.get(kind, str), "field_has_wrong_type")
    if kind == "int":
        need(0 <= value < 2**63, "number_out_of_range")
    if kind == "address":
        return read_address(value)
    if kind in BYTES:
        least, most = BYTES[kind]
        need(len(value) % 2 == 0 and not set(value) - set("0123456789abcdef"), "hex_invalid")
        need(least <= len(value) // 2 <= most, "bytes_length_out_of_range")
        return bytes.fromhex(value)
    return value


def read_address(value):
    """20 bytes in bech32m under the prefix wp (BIP 350)."""
    need(value[:3] == "wp1" and len(value) == 41 and not set(value[3:]) - set(LETTERS), "address_invalid")
    values = [LETTERS.index(letter) for letter in value[3:]]
    checksum = 1
    for part in [3, 3, 0, 23, 16, *values]:  # "wp": the high bits, 0, the low bits
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ part
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            checksum ^= generator if top >> bit & 1 else 0
    need(checksum == 0x2BC830A3, "address_invalid")
    number = 0
    for part in values[:32]:
        number = number << 5 | part
    return number.to_bytes(20, "big")


def read_json(raw):
    """JSON with whole numbers only, and each name once in its object."""

    def read_object(pairs):
        need(len(dict(pairs)) == len(pairs), "field_named_twice")
        return dict(pairs)

    def refuse(_):
        need(False, "field_has_wrong_type")

    need(len(raw) <= BYTES_MAX, "certificate_too_large")
    try:
        return json.loads(raw.decode(), object_pairs_hook=read_object, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise Refused("certificate_not_json") from None


# — who says so: signatures, validators, final headers —


def is_signed(key, message, signature):
    """Ed25519 under a key of 32 bytes, ECDSA P-256 with the lower s under one of 33: a signature has one form."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        if len(key) == 32:
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
            return not {key, signature[:32]} & SMALL_ORDER
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
        point.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return 0 < r < P256_ORDER and 0 < s <= P256_ORDER // 2


def hash_validators(validators):
    members = [read("validator", one) for one in validators]
    need(len({key for key, _ in members}) == len(members), "validator_named_twice")
    return sha256(b"wattprint/validators/1\0" + pack(members)).hex()


def check_final(header, commit, validators, chain):
    """A quorum of these validators precommitted this header; ``chain``: chain id, hash of the genesis, version."""
    need(header["chain_id"] == chain[0], "certificate_of_another_chain")
    need(hash_validators(validators) == header["validators_hash"], "validators_not_those_of_header")
    voters, count = [one["voter"] for one in commit["signatures"]], len(validators)
    need(voters == sorted(voters), "certificate_list_not_in_order")
    need(set(voters) <= {one["public_key"] for one in validators}, "certificate_signer_unknown")
    need(len(set(voters)) == len(voters), "certificate_signer_repeated")
    need(len(voters) >= count - (count - 1) // 3, "certificate_signatures_too_few")
    block_id = sha256(b"wattprint/header/1\0" + pack(read("header", header)))
    message = b"wattprint/precommit/1\0" + pack([*chain, header["height"], commit["round"], block_id])
    for key, signature in (read("precommit", one) for one in commit["signatures"]):
        need(is_signed(key, message, signature), "certificate_signature_invalid")


def check_chain(certificate, genesis):
    """From the genesis file to the certificate's header; the answer is how many validators there are."""
    chain = [genesis["chain_id"], sha256(b"wattprint/genesis/1\0" + pack(read("genesis", genesis))), 1]
    named = certificate["chain"]
    need([named["chain_id"], bytes.fromhex(named["genesis_hash"])] == chain[:2], "certificate_of_another_chain")
    validators, height = genesis["validators"], 0
    for change in certificate["validator_changes"]:
        header = change["header"]
        need(header["height"] > height, "validator_changes_not_in_order")
        check_final(header, change["commit"], validators, chain)
        need(header["next_validators_hash"] != header["validators_hash"], "certificate_has_more_than_it_needs")
        validators, height = change["next_validators"], header["height"]
        need(hash_validators(validators) == header["next_validators_hash"], "validators_not_announced")
    need(certificate["header"]["height"] > height, "validator_changes_not_in_order")
    check_final(certificate["header"], certificate["commit"], validators, chain)
    return len(validators)


# — what the state says —


class State:
    """The part of the state trie that the certificate carries, under the root that the validators signed."""

    def __init__(self, root, part):
        self.root, self.nodes, self.buckets = root, {}, {}
        check_rising(part["nodes"])
        check_rising(part["buckets"])
        for raw in map(bytes.fromhex, part["nodes"]):
            marks = [int.from_bytes(raw[:2], "big") >> 15 - child & 1 for child in range(16)]
            hashes_ = [raw[at : at + 32] for at in range(2, len(raw), 32)]
            need(len(raw) == 2 + 32 * sum(marks) and NOTHING not in hashes_, "state_proof_malformed")
            children = [hashes_.pop(0) if mark else NOTHING for mark in marks]
            self.nodes[sha256(b"\x01" + b"".join(children))] = children
        for raw in map(bytes.fromhex, part["buckets"]):
            self.buckets[sha256(b"\x00" + raw)] = raw
        self.unused = {*self.nodes, *self.buckets}

    def check(self, key, value):
        """The full key has this packed value; None: it is not there."""
        key_hash = sha256(key)
        part = self.root
        for digit in key_hash.hex():
            if part not in self.nodes:
                break
            self.unused.discard(part)
            part = self.nodes[part][int(digit, 16)]
        entries = {}
        if part != NOTHING:
            need(part in self.buckets, "state_proof_incomplete")
            self.unused.discard(part)
            raw = self.buckets[part]
            entries = {raw[at : at + 32]: raw[at + 32 : at + 64] for at in range(0, len(raw), 64)}
        need(value is not None or key_hash not in entries, "state_proof_key_present")
        need(value is None or key_hash in entries, "state_proof_key_absent")
        need(value is None or entries[key_hash] == sha256(b"\x02" + value), "state_proof_value_differs")


def check_records(state, certificate):
    """Every record stands in the state as the certificate has it."""

    def check(key, kind, value):
        state.check(b"s" + key, None if value is None else pack(read(kind, value)))

    for one in certificate["charges"] + [certificate["claim"]] * (certificate["claim"] is not None):
        check(b"cl" + read("id", one["claim"]), "claim", one["record"])
    for one in certificate["participants"]:
        check(b"pa" + read("address", one["address"]), "participant", one["record"])
    for name, table, kind in (("sites", b"si", "site"), ("meters", b"me", "meter")):
        for one in certificate[name]:
            check(table + read("id", one[kind]), kind, one["record"])
    if certificate["parameters"] is not None:
        check(b"pp", "parameters", certificate["parameters"])
    for one in certificate["reports"]:
        meter, start = read("id", one["meter"]), one["record"]["start_ms"].to_bytes(8, "big")
        state.check(b"smk" + sha256(read("meter_key", one["key"])), pack([meter]))
        check(b"rr" + meter + b"production\0" + start, "report", one["record"])
        if one["mint"] is not None:
            check(b"lm" + meter + start, "mint", one["mint"])
    for one in certificate["lots"]:
        meter, start, version = read("lot_id", one["lot"])
        instance = start.to_bytes(8, "big") + version.to_bytes(8, "big")
        check(b"ls" + meter + instance, "slices", one["slices"])
        channel = meter + b"production\0"
        for field, key in (("reissue", b"lr" + meter), ("correction", b"rh" + channel), ("sources", b"lc" + meter)):
            if one[field] is not None:
                check(key + instance, field, one[field])
    need(not state.unused, "certificate_has_more_than_it_needs")


def check_meter_signatures(reports, chain_id):
    names = ("sequence", "start_ms", "interval_s", "values_wh", "register_start_wh", "register_end_wh", "flag")
    for one in reports:
        meter, key, signature, _, _ = read("report_part", one)
        signed = [chain_id, meter, "production", *(one["record"][name] for name in names)]
        need(is_signed(key, b"wattprint/report/1\0" + pack(signed), signature), "meter_signature_invalid")


def name_lot(lot):
    return lot["meter"], lot["start_ms"], lot["version"]


def find_report(reports, lot):
    """The place of a lot's report in the list, and the index of its interval there."""
    for number, one in enumerate(reports):
        index, rest = divmod(lot["start_ms"] - one["record"]["start_ms"], one["record"]["interval_s"] * 1000)
        if one["meter"] == lot["meter"] and 0 <= index < len(one["record"]["values_wh"]):
            return number, index, rest
    raise Refused("report_missing")


def check_lots(certificate):
    """Each lot goes back to what its meter signed, or to its correction; each report serves a lot."""
    lots, used, used_mints = {}, set(), set()
    for one in certificate["lots"]:
        number, index, rest = find_report(certificate["reports"], one["lot"])
        report, mint = (certificate["reports"][number][field] for field in ("record", "mint"))
        correction = one["correction"]
        used.add(number)
        if one["lot"]["version"] == 1:
            used_mints.add(number)
            need(mint is not None, "mint_missing")
            need(one["reissue"] is None and correction is None, "certificate_has_more_than_it_needs")
            shape = report["start_ms"], report["interval_s"], len(report["values_wh"]), 1, 0
            same = shape == (mint["start_ms"], mint["interval_s"], len(mint["wh"]), mint["version"], rest)
            same = same and index not in report["quarantined"]
            minted, wh, measured_wh, how = mint, mint["wh"][index], report["values_wh"][index], report["flag"]
        else:
            minted = one["reissue"]
            need(minted is not None and correction is not None, "mint_missing")
            same = minted["interval_s"] == report["interval_s"] and not correction["is_quarantined"]
            wh, measured_wh, how = minted["wh"], correction["wh"], correction["flag"]
        is_stored = minted["technology"] == "storage"
        same = same and how == "measured" and 0 < wh <= measured_wh and (wh == measured_wh or is_stored)
        need(same, "mint_differs_from_report")
        lots[name_lot(one["lot"])] = check_lot(one, minted, wh, is_stored)
    mints = {number for number, one in enumerate(certificate["reports"]) if one["mint"] is not None}
    need(len(used) == len(certificate["reports"]) and used_mints == mints, "certificate_has_more_than_it_needs")
    return lots


def check_lot(one, minted, wh, is_stored):
    slices = share_out(wh, minted["shares"]) if one["slices"] is None else one["slices"]["slices"]
    ends = [0, *(part["end_wh"] for part in slices)]
    is_whole = [part["first_wh"] for part in slices] == ends[:-1] and ends[-1] == wh and ends == sorted(set(ends))
    need(is_whole, "slices_do_not_make_the_lot")
    need(one["sources"] is not None or not is_stored, "certificate_lacks_a_record")
    need(one["sources"] is None or is_stored, "certificate_has_more_than_it_needs")
    sources = one["sources"]["sources"] if is_stored else []
    need(not is_stored or sum(source["wh"] for source in sources) == wh, "sources_do_not_make_the_lot")
    charges = {source["charge"] for source in sources}
    return {"slices": slices, "charges": charges, "interval_s": minted["interval_s"]}


def share_out(wh, shares):
    """The slices of a lot that nobody touched: by largest remainder, equal remainders in the order of the shares."""
    total = sum(weight for _, weight in shares)
    parts = [wh * weight // total for _, weight in shares]
    for number in sorted(range(len(shares)), key=lambda i: -(wh * shares[i][1] % total))[: wh - sum(parts)]:
        parts[number] += 1
    slices, first = [], 0
    for (holder, _), part in zip(shares, parts, strict=True):
        if part:
            slices.append({"first_wh": first, "end_wh": first + part, "holder": holder, "status": "active"})
        first += part
    return slices


def check_claim(part, lots):
    claim = part["record"]
    need(claim["status"] == "claimed", "claim_not_in_force")
    status = "charged" if claim["kind"] == "charge" else "claimed"
    for ref in claim["slices"]:
        need(name_lot(ref["lot"]) in lots, "certificate_lacks_a_record")
        slices = lots[name_lot(ref["lot"])]["slices"]
        (one,) = [one for one in slices if one["first_wh"] <= ref["first_wh"] < one["end_wh"]] or [None]
        is_of_it = one and (one["status"], one["reference"]) == (status, part["claim"])
        need(is_of_it and ref["first_wh"] < ref["end_wh"] <= one["end_wh"], "slice_not_of_the_subject")
    places = sorted((*name_lot(ref["lot"]), ref["first_wh"], ref["end_wh"]) for ref in claim["slices"])
    need(all(a[:3] != b[:3] or a[4] <= b[3] for a, b in pairwise(places)), "slice_named_twice")
    need(sum(ref["end_wh"] - ref["first_wh"] for ref in claim["slices"]) == claim["wh"], "claim_sum_differs")


def check_holding(part, lots, header, parameters):
    """All that the holder may still use of the lots that it names."""
    places = [(*name_lot(ref["lot"]), ref["first_wh"], ref["end_wh"]) for ref in part["slices"]]
    check_rising([place[:4] for place in places])
    held = set()
    for name in {place[:3] for place in places}:
        need(name in lots, "certificate_lacks_a_record")
        end_ms = name[1] + (lots[name]["interval_s"] + parameters["lot_lifetime_s"]) * 1000
        need(header["time_ms"] < end_ms, "lot_expired")
        own = [one for one in lots[name]["slices"] if one["holder"] == part["holder"]]
        held |= {(*name, one["first_wh"], one["end_wh"]) for one in own if one["status"] in ("active", "reserved")}
    need(held == set(places), "slice_not_of_the_subject")


def check_exactly(given, needed):
    need(needed <= set(given), "certificate_lacks_a_record")
    need(set(given) <= needed, "certificate_has_more_than_it_needs")


def check_subject(certificate, lots):
    """The claim or the holding, the charges behind what left a storage, and not one record beside."""
    claim, holding, parameters = (certificate[name] for name in ("claim", "holding", "parameters"))
    need((claim is None) != (holding is None) == (parameters is None), "certificate_subject_unclear")
    meters = {name[0] for name in lots}
    if claim is not None:
        check_claim(claim, lots)
        record = claim["record"]
        refs, people = list(record["slices"]), {record["claimant"], record["beneficiary"]}
        meters |= {record["consumption_meter"]} - {None}
    else:
        check_holding(holding, lots, certificate["header"], parameters)
        refs, people = list(holding["slices"]), {holding["holder"]}
    charges = {one["claim"]: one["record"] for one in certificate["charges"]}
    for name, lot in lots.items():
        for one in [charges[charge] for charge in lot["charges"] if charge in charges]:
            need((one["kind"], one["consumption_meter"]) == ("charge", name[0]), "charge_of_another_storage")
    check_exactly(charges, set().union(*(lot["charges"] for lot in lots.values())))
    for one in certificate["charges"]:
        check_claim(one, lots)
        refs += one["record"]["slices"]
    check_exactly(lots, {name_lot(ref["lot"]) for ref in refs})
    people |= {one["correction"]["corrected_by"] for one in certificate["lots"] if one["correction"] is not None}
    check_exactly([one["address"] for one in certificate["participants"]], people)
    check_exactly([one["meter"] for one in certificate["meters"]], meters)
    sites = {one["record"]["site"] for one in certificate["meters"]}
    check_exactly([one["site"] for one in certificate["sites"]], sites)


def verify(certificate, genesis):
    """Check the JSON of a certificate against that of the genesis file; a line that says what is true."""
    found = certificate.get("format") if type(certificate) is dict else None
    need(found == "wattprint-certificate", "certificate_not_recognised")
    need(type(certificate.get("version")) is int and certificate["version"] == 1, "certificate_version_unknown")
    read("certificate", certificate)
    read("genesis", genesis)
    check_rising([read("address", one["address"]) for one in certificate["participants"]])
    check_rising([(one["meter"], one["record"]["start_ms"]) for one in certificate["reports"]])
    check_rising([name_lot(one["lot"]) for one in certificate["lots"]])
    for name, field in (("sites", "site"), ("meters", "meter"), ("charges", "claim")):
        check_rising([one[field] for one in certificate[name]])
    validators = check_chain(certificate, genesis)
    check_records(State(bytes.fromhex(certificate["header"]["state_root"]), certificate["state"]), certificate)
    check_meter_signatures(certificate["reports"], genesis["chain_id"])
    check_subject(certificate, lots := check_lots(certificate))
    content = {name: value for name, value in certificate.items() if name != "id"}
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    need(sha256(b"wattprint/certificate/1\0" + canonical).hex() == certificate["id"], "certificate_id_differs")
    what = f"a {'claim' if certificate['claim'] else 'holding'} of {len(lots)} lots on {genesis['chain_id']}"
    signed = f"{len(certificate['commit']['signatures'])} of {validators} validators"
    return f"{what}, height {certificate['header']['height']}, signed by {signed}: certificate {certificate['id']}"


def main(arguments):
    if len(arguments) != 2:
        print("usage: python verify_certificate.py CERTIFICATE.json GENESIS.json", file=sys.stderr)
        return 2
    try:
        print("true:", verify(*(read_json(Path(name).read_bytes()) for name in arguments)))
    except (Refused, OSError) as error:
        print(f"refused: {error}" if isinstance(error, Refused) else error, file=sys.stderr)
        return 1 if isinstance(error, Refused) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
