"""Plants known defects beside the hand-written sample and writes the truth about them. `python data/sample/plant.py` from the root.

Reads data/raw (all but planted/) and the hand-written carriers in this folder; writes data/raw/planted/* and data/sample/truth.jsonl. The
same seed gives the same bytes, and a test holds the committed files against a fresh run. One line of the truth says what is wrong with
one raw row and where the pipeline has to find it:

    {"source", "line", "defect", "variant", "stage", "reason", …}

`reason` is null where any of the stage's will do. `stage` is null for rows that must stay (conflicts, repairs, personal data: those
carry `values` that must be gone, or `wanted`, the text after repair). `of` names the hand-written row that a duplicate was made from,
`jaccard` how alike the two are: the exact similarity of their shingles (docs/near-duplicates.md), worked out here with plain sets so that
it owes nothing to the code under test.
"""

import csv
import gzip
import io
import json
import random
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RAW = HERE.parent / "raw"
PLANTED = RAW / "planted"
SEED = 20261122
MAX_ROW_BYTES = 4_194_304  # ingest.max_row_bytes as shipped: the planted giant is just above it
Row = dict[str, Any]
Truth = list[Row]


def main() -> None:
    """Write every planted file and the truth."""
    rng = random.Random(SEED)
    PLANTED.mkdir(exist_ok=True)
    tickets = list(_tickets())
    chats = list(_jsonl("chats.jsonl"))
    shorts = list(_shorts())
    truth: Truth = []
    used = iter(rng.sample(range(len(tickets)), len(tickets)))
    for plant in (_exact, _near, _cut_off, _conflicts):
        truth += plant(rng, tickets, used)
    truth += _exact_chats(rng, chats)
    truth += _near_short(rng, shorts)
    truth += _foreign() + _refusals() + _bad_turns(chats) + _repairs() + _personal() + _secrets(rng) + _leaks(rng)
    truth += _malformed_lines() + _malformed_files()
    (HERE / "truth.jsonl").write_text("".join(_json(row) + "\n" for row in truth), encoding="utf-8")


def _json(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False)


def _write(name: str, rows: list[Row]) -> None:
    (PLANTED / name).write_text("".join(_json(row) + "\n" for row in rows), encoding="utf-8")


def _jsonl(name: str) -> Iterator[tuple[str, int, Row]]:
    for line, text in enumerate((RAW / name).read_text(encoding="utf-8").splitlines(), 1):
        yield name, line, json.loads(text)


def _csv(name: str) -> Iterator[tuple[str, int, Row]]:
    with (RAW / name).open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        line = reader.line_num + 1  # a record starts on the line after the one before it ended
        for cells in reader:
            yield name, line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1


def _tickets() -> Iterator[tuple[str, int, Row]]:
    yield from _csv("tickets.csv")


def _shorts() -> Iterator[tuple[str, int, Row]]:
    yield from _csv("intents.csv")


def _alike(one: tuple[str, str], other: tuple[str, str]) -> float:
    """How alike two rows of (prompt, answer) are: shingles of five characters below 512, of three words from 256 on, each side its own; the
    larger similarity, or that of the answers alone if it is smaller."""
    found = []
    for wide in (False, True):
        sets = []
        for row in (one, other):
            folded = [" ".join(text.lower().split()) for text in row]
            parts = [re.findall(r"\w+|[^\w\s]", text) if wide else list(text) for text in folded]
            size, count = (3 if wide else 5), sum(map(len, folded))
            grams = [
                {(side, *some[at : at + size]) for at in range(max(len(some) - size + 1, 1))} if some else set[tuple[object, ...]]()
                for side, some in enumerate(parts)
            ]
            sets.append(grams if (count >= 256 if wide else count < 512) else None)
        a, b = sets
        if a and b:
            answers = len(a[1] & b[1]) / max(len(a[1] | b[1]), 1)
            whole = len((a[0] | a[1]) & (b[0] | b[1])) / len(a[0] | a[1] | b[0] | b[1])
            found.append((whole, min(whole, answers)))
    return max(found, default=(0.0, 0.0))[1]


def _mark(name: str, line: int, defect: str, variant: str, stage: str | None, reason: str | None, more: Row | None = None) -> Row:
    return {"source": f"planted/{name}", "line": line, "defect": defect, "variant": variant, "stage": stage, "reason": reason} | (
        more or {}
    )


def _answered(row: Row, question: str, answer: str) -> Row:
    return {"question": question, "answer": answer, "intent": row["intent"]}


# --- duplicates -----------------------------------------------------------------------------------------------------------------------


def _exact(rng: random.Random, tickets: list[tuple[str, int, Row]], used: Iterator[int]) -> Truth:
    """Tickets again in another file: as they are, shouted, and with their white space mangled."""
    variants: dict[str, Callable[[str], str]] = {
        "same": lambda text: text,
        "case": str.upper,
        "space": lambda text: "  " + text.replace(". ", ".   ").replace("\n\n", "\n \n\t") + "\n",
    }
    rows: list[Row] = []
    truth: Truth = []
    for variant, change in variants.items():
        for _ in range(6):
            source, line, row = tickets[next(used)]
            rows.append(_answered(row, change(row["question"]), change(row["answer"])))
            of = {"of": f"{source}:{line}", "jaccard": 1.0}
            truth.append(_mark("again.jsonl", len(rows), "exact_duplicate", variant, "dedup_exact", "exact_duplicate", of))
    _write("again.jsonl", rows)
    return truth


def _exact_chats(rng: random.Random, chats: list[tuple[str, int, Row]]) -> Truth:
    rows: list[Row] = []
    truth: Truth = []
    for source, line, row in rng.sample(chats, 6):
        rows.append(row)
        truth.append(
            _mark(
                "again-chats.jsonl",
                len(rows),
                "exact_duplicate",
                "chat",
                "dedup_exact",
                "exact_duplicate",
                {"of": f"{source}:{line}", "jaccard": 1.0},
            )
        )
    _write("again-chats.jsonl", rows)
    return truth


def _near(rng: random.Random, tickets: list[tuple[str, int, Row]], used: Iterator[int]) -> Truth:
    """Tickets with light and heavy edits, other sentence order, another greeting."""
    variants: dict[str, Callable[[random.Random, str], str]] = {
        "light": _light,
        "heavy": _heavy,
        "reordered": _reordered,
        "greeting": _greeting,
    }
    rows: list[Row] = []
    truth: Truth = []
    for variant, change in variants.items():
        for _ in range(12):
            source, line, row = tickets[next(used)]
            question, answer = change(rng, row["question"]), row["answer"] if variant == "greeting" else change(rng, row["answer"])
            rows.append(_answered(row, question, answer))
            alike = _alike((row["question"], row["answer"]), (question, answer))
            of = {"of": f"{source}:{line}", "jaccard": round(alike, 6)}
            truth.append(_mark("reworked.jsonl", len(rows), "near_duplicate", variant, "dedup_near", "near_duplicate", of))
    _write("reworked.jsonl", rows)
    return truth


def _near_short(rng: random.Random, shorts: list[tuple[str, int, Row]]) -> Truth:
    """Short messages with one letter changed or a word added at the end."""
    rows: list[Row] = []
    truth: Truth = []
    for at, (source, line, row) in enumerate(rng.sample([each for each in shorts if len(each[2]["text"]) > 60], 16)):
        text = row["text"] + " please" if at % 2 else _typo(rng, row["text"])
        rows.append({"text": text, "intent": row["intent"]})
        alike = _alike((row["text"], row["intent"]), (text, row["intent"]))
        of = {"of": f"{source}:{line}", "jaccard": round(alike, 6)}
        truth.append(_mark("reworked-short.jsonl", len(rows), "near_duplicate", "short", "dedup_near", "near_duplicate", of))
    _write("reworked-short.jsonl", rows)
    return truth


def _typo(rng: random.Random, text: str) -> str:
    at = rng.choice([place for place, letter in enumerate(text) if letter.isalpha()])
    return text[:at] + rng.choice(string.ascii_lowercase.replace(text[at].lower(), "")) + text[at + 1 :]


def _light(rng: random.Random, text: str) -> str:
    return _typo(rng, _typo(rng, text))


def _heavy(rng: random.Random, text: str) -> str:
    """About one word in eight left out, never the last, which would make a cut-off answer of it."""
    words = re.split(r"(\s+)", text)
    if len(words) <= 16:
        return text
    return "".join(word for word in words[:-1] if word.isspace() or rng.random() > 0.12) + words[-1]


def _reordered(rng: random.Random, text: str) -> str:
    sentences = re.split(r"(?<=[.!?])\s+", text)
    rng.shuffle(sentences)
    return " ".join(sentences)


def _greeting(rng: random.Random, text: str) -> str:
    return rng.choice(["Good morning all, ", "Hello there, ", "Hi team! ", "To whom it may concern: ", "Hey, "]) + text


# --- what clean has to drop -----------------------------------------------------------------------------------------------------------


def _cut_off(rng: random.Random, tickets: list[tuple[str, int, Row]], used: Iterator[int]) -> Truth:
    """Answers that end in mid-sentence, after a word that cannot end one."""
    rows: list[Row] = []
    truth: Truth = []
    while len(rows) < 12:
        _, _, row = tickets[next(used)]
        words = row["answer"].split(" ")
        ends = [at for at in range(len(words) // 2, len(words) - 5) if words[at].isalpha() and words[at].islower()]
        if not ends:
            continue
        rows.append(_answered(row, row["question"], " ".join(words[: rng.choice(ends) + 1])))
        truth.append(_mark("cut.jsonl", len(rows), "cut_off", "mid_sentence", "clean", "cut_off"))
    _write("cut.jsonl", rows)
    return truth


def _foreign() -> Truth:
    rows = json.loads((HERE / "foreign.json").read_text(encoding="utf-8"))
    _write("foreign.jsonl", rows)
    return [_mark("foreign.jsonl", at, "wrong_language", "exchange", "clean", "wrong_language") for at in range(1, len(rows) + 1)]


def _refusals() -> Truth:
    rows = json.loads((HERE / "refusals.json").read_text(encoding="utf-8"))
    _write("refusals.jsonl", rows)
    return [_mark("refusals.jsonl", at, "refusal", "boilerplate", "clean", "refusal") for at in range(1, len(rows) + 1)]


def _bad_turns(chats: list[tuple[str, int, Row]]) -> Truth:
    """Roles out of order, an answer that repeats the question, an answer that repeats itself, no answer at all."""
    turns = [message for message in chats[3][2]["messages"] if message["role"] != "system"]
    question = "The light on my hub went from blue to amber during the storm and it has not come back since, what now?"
    stuck = "Please restart the hub. " * 30
    planted = [
        ("assistant_first", "role_order", turns[1:]),
        ("two_users", "role_order", [turns[0], turns[0], *turns[1:]]),
        ("no_answer", "role_order", turns[:-1]),
        ("copies_prompt", "answer_copies_prompt", [{"role": "user", "content": question}, {"role": "assistant", "content": question}]),
        ("repetition", "repetition", [{"role": "user", "content": "The hub hangs once a week."}, {"role": "assistant", "content": stuck}]),
        ("empty_answer", "empty", [{"role": "user", "content": "Is the 2.4 band slower?"}, {"role": "assistant", "content": " \u200b \n"}]),
    ]
    _write("turns.jsonl", [{"messages": messages} for _, _, messages in planted])
    return [_mark("turns.jsonl", at, "bad_turns", variant, "clean", reason) for at, (variant, reason, _) in enumerate(planted, 1)]


def _repairs() -> Truth:
    """Damaged text that clean mends, and hostile text that has to pass through as it is."""
    planted = [
        ("mojibake", "The cafÃ© downstairs shares my line, doesnâ€™t it?", "The café downstairs shares my line, doesn’t it?"),
        (
            "zero_width",
            "My pass\u200bport for Home\u200dGuard is refu\ufeffsed on every de\u200bvice.",
            "My passport for HomeGuard is refused on every device.",
        ),
        ("bidi", "Is the file invoice\u202efdp.exe from you genuine?", "Is the file invoicefdp.exe from you genuine?"),
        (
            "html",
            "<p>Two bills in one month,<br>both for Fibre&nbsp;80 &amp; a pod.</p>",
            "Two bills in one month,\nboth for Fibre 80 & a pod.",
        ),
        ("control", "The\x07 hub beeps\x08 at night\x1b.", "The hub beeps at night."),
        ("decomposed", "Cafe\u0301 Zoe\u0308 has no signal at the counter.", "Café Zoë has no signal at the counter."),
        ("script", "My page shows `<script>alert(1)</script>` and `</table>` in the guest name, is HomeGuard hacked?", None),
        ("template", "The welcome mail greets me as {{ 7*7 }} and {% raw %}, somebody forgot to fill it in.", None),
        ("formula", '=HYPERLINK("https://help.pellmoor.example/","click") is what your export puts into cell A1.', None),
    ]
    answers = [
        "Yes, both of you hang on one cabinet, which is why the evenings are slow.",
        "Set it anew in the app under HomeGuard, and sign out on each device once.",
        "It is not. Delete it, and forward nothing: we never send programs.",
        "One of them is the part month before your upgrade. The pod is charged once.",
        "That is the fan at full speed. Stand the hub upright and clear of the wall.",
        "A pod on the counter would mend that, half-way to the hub in the office.",
        "No, the guest typed that as a name. The app shows it as text and runs nothing.",
        "You are right, the template was broken for an hour. The next one greets you properly.",
        "Thank you for the report. The export now puts an apostrophe in front of such cells.",
    ]
    rows = [{"question": question, "answer": answer} for (_, question, _), answer in zip(planted, answers, strict=True)]
    _write("damaged.jsonl", rows)
    return [
        _mark("damaged.jsonl", at, "damaged" if wanted else "hostile", variant, None, None, {"wanted": wanted or question})
        for at, (variant, question, wanted) in enumerate(planted, 1)
    ]


def _conflicts(rng: random.Random, tickets: list[tuple[str, int, Row]], used: Iterator[int]) -> Truth:
    """A known question with the answer to another: reported, never dropped."""
    rows: list[Row] = []
    truth: Truth = []
    for _ in range(8):
        source, line, row = tickets[next(used)]
        _, _, other = tickets[next(used)]
        rows.append(_answered(row, row["question"], f"{other['answer']} This replaces what we wrote to you earlier."))
        truth.append(_mark("conflicts.jsonl", len(rows), "conflict", "other_answer", None, None, {"of": f"{source}:{line}"}))
    _write("conflicts.jsonl", rows)
    return truth


# --- personal data and secrets --------------------------------------------------------------------------------------------------------


def _personal() -> Truth:
    rows = json.loads((HERE / "personal.json").read_text(encoding="utf-8"))
    _write("personal.jsonl", [{key: row[key] for key in ("question", "answer", "intent")} for row in rows])
    return [
        _mark("personal.jsonl", at, "personal", "+".join(row["values"]), None, None, {"values": row["values"]})
        for at, row in enumerate(rows, 1)
    ]


def _secrets(rng: random.Random) -> Truth:
    """Secrets of every kind that scrub names, made here: none was ever valid."""

    def pick(alphabet: str, count: int) -> str:
        return "".join(rng.choice(alphabet) for _ in range(count))

    letters, upper = string.ascii_letters + string.digits, string.ascii_uppercase + string.digits
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + "\n".join(pick(letters, 64) for _ in range(4)) + "\n-----END RSA PRIVATE KEY-----"
    planted = [
        (
            "aws_access_key",
            "AKIA" + pick(string.ascii_uppercase + "234567", 16),
            "My backup script prints {} before it fails with 403, is that your proxy?",
        ),
        ("github_token", "ghp_" + pick(letters, 36), "git push through your line hangs, remote is https, token {} works elsewhere."),
        ("gitlab_token", "glpat-" + pick(letters, 20), "The runner at home registers with {} and then times out after 30 seconds."),
        (
            "slack_token",
            f"xoxb-{pick(string.digits, 12)}-{pick(string.digits, 12)}-{pick(letters, 24)}",
            "Our alert bot ({}) stopped posting when we moved to Fibre 300.",
        ),
        ("stripe_key", "sk_live_" + pick(letters, 24), "The till uses {} and says the gateway is unreachable through your DNS."),
        ("openai_key", "sk-proj-" + pick(letters, 48), "curl with the bearer {} gives a TLS reset, only on Pellmoor."),
        ("google_api_key", "AIza" + pick(letters + "-_", 35), "Maps on the parking screen, key {}, stay grey since the outage."),
        (
            "jwt",
            f"eyJ{pick(letters, 33)}.eyJ{pick(letters, 60)}.{pick(letters + '-_', 43)}",
            "The portal puts {} into the address bar. Should I worry?",
        ),
        ("private_key", key, "This is the key I gave the NAS, does the hub rewrite it?\n{}"),
        (
            "connection_string",
            f"postgres://shop:{pick(letters, 14)}@db.example.com:5432/orders",
            "The shop dials {} and gets no route since Tuesday.",
        ),
        (
            "bearer",
            "Authorization: Bearer " + pick(letters + "-_", 40),
            "Here is the failing request:\nGET /v1/usage\n{}\nIt works on mobile data.",
        ),
        ("password", "password=" + pick(letters + "!#%", 14), "The NAS mounts with {} in fstab and drops the share every night."),
        ("url_credentials", f"https://camera:{pick(letters, 12)}@cam.example.net/live", "My stream {} is fine indoors and dead outside."),
        (
            "slack_webhook",
            f"https://hooks.slack.com/services/T{pick(upper, 8)}/B{pick(upper, 8)}/{pick(letters, 24)}",
            "Outage texts go to {} but nothing arrives.",
        ),
        ("npm_token", "npm_" + pick(letters, 36), "npm publish with {} breaks at 60 per cent on this line."),
        ("sendgrid_key", f"SG.{pick(letters, 22)}.{pick(letters, 43)}", "Port 587 seems shut. The mailer signs on with {} and waits."),
        ("hf_token", "hf_" + pick(letters, 34), "Model downloads with {} crawl at 2 Mbit/s after midnight."),
        ("azure_key", f"AccountKey={pick(letters + '+/', 86)}==", "The vault sync has {} in its settings and stalls behind CGNAT."),
    ]
    answers = [
        f"We have taken the {name.replace('_', ' ')} out of this ticket. Please revoke it, then {_advice(at)}"
        for at, (name, _, _) in enumerate(planted)
    ]
    rows = [{"question": text.format(value), "answer": answer} for (_, value, text), answer in zip(planted, answers, strict=True)]
    _write("secrets.jsonl", rows)
    return [
        _mark("secrets.jsonl", at, "secret", name, None, None, {"values": {"SECRET": [_core(name, value)]}})
        for at, (name, value, _) in enumerate(planted, 1)
    ]


def _core(name: str, value: str) -> str:
    """The part of a secret that must not survive: the password alone where the rest is harmless."""
    if name in ("connection_string", "url_credentials"):
        return value.split("://", maxsplit=1)[1].split("@", maxsplit=1)[0].split(":")[1]
    if name == "private_key":
        return value.splitlines()[1]
    return re.split(r"^password=|^AccountKey=|Bearer ", value)[-1]


def _advice(at: int) -> str:
    return [
        "try again without the proxy setting.",
        "raise the post buffer to 50 MB and push once more.",
        "let the runner use IPv6, which is not translated.",
        "allow the bot's host in HomeGuard, where it is blocked as chat.",
        "set the till to our resolvers by hand.",
        "switch the inspection in your antivirus off for that host.",
        "reload the screen: the block was on the hub's guest band.",
        "sign out once, so that the address is worthless to others.",
        "leave the hub alone: it never touches what the disk holds.",
        "check the route with mtr and send us hops four to nine.",
        "lower the MTU to 1492 and repeat the request.",
        "mount it with nofail and a longer timeout.",
        "forward port 554, which a static address makes possible.",
        "renew the hook, since the old one was deleted in June.",
        "publish over a cable, not over the far pod.",
        "use port 465 with TLS from the start.",
        "tell us the time of one slow download and its size.",
        "ask for a static address: inbound sync needs one.",
    ][at]


# --- benchmark leaks ------------------------------------------------------------------------------------------------------------------


def _leaks(rng: random.Random) -> Truth:
    """Benchmark items in the training data: as they are, recased, with other punctuation, inside a longer message, half of one."""
    variants: dict[str, Callable[[str], str]] = {
        "verbatim": lambda text: text,
        "case": str.upper,
        "punctuation": lambda text: re.sub(r"([.,?])(?=\s|$)", r" \1..", text),
        "embedded": lambda text: f"Quick one before my shift starts, found in the training pack. {text} I could not find it in the wiki.",
        "truncated": lambda text: " ".join(text.split()[: round(len(text.split()) * 0.75)]),
    }
    items = []
    for path in sorted((HERE.parent / "benchmarks").glob("*.jsonl")):
        items += [(path.name, json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = iter(rng.sample(items, 30))
    rows: list[Row] = []
    truth: Truth = []
    for variant, change in variants.items():
        for _ in range(6):
            name, item = next(chosen)
            rows.append({"prompt": change(item["question"]), "completion": item["answer"]})
            of = {"benchmark": name, "item": item["id"]}
            truth.append(_mark("leaks.jsonl", len(rows), "benchmark_leak", variant, "decontaminate", None, of))
    _write("leaks.jsonl", rows)
    return truth


# --- malformed rows -------------------------------------------------------------------------------------------------------------------


def _malformed_lines() -> Truth:
    """One file with a good row between bad ones of every kind."""
    good = {"question": "Does the voice adapter work with a cordless handset?", "answer": "Any handset with a standard plug will do."}
    lines: list[tuple[str, str | None, bytes]] = [
        ("good", None, _json(good).encode()),
        ("cut_json", "invalid_json", b'{"question": "Where is the reset pin", "answer": "At the ba'),
        ("not_json", "invalid_json", b"question: Where is my parcel?"),
        ("lone_surrogate", "invalid_json", b'{"question": "Hub \\ud83d shows a face?", "answer": "That is a smiley."}'),
        ("messages_is_text", "wrong_type", b'{"messages": "user: hello"}'),
        ("content_is_number", "wrong_type", b'{"messages": [{"role": "user", "content": 7}, {"role": "assistant", "content": "Seven."}]}'),
        ("unknown_role", "wrong_type", b'{"messages": [{"role": "wizard", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}'),
        ("row_is_list", "wrong_type", b'["question", "answer"]'),
        ("no_known_field", "missing_field", b'{"subject": "Refund", "body": "When?"}'),
        ("no_answer", "missing_field", b'{"question": "Why is the light red?"}'),
        ("empty_object", "missing_field", b"{}"),
        ("empty_messages", "empty", b'{"messages": []}'),
        ("blank_strings", "empty", b'{"question": "  ", "answer": ""}'),
        ("latin1", "invalid_utf8", '{"question": "Ist das Café versorgt?", "answer": "Ja."}'.encode("latin-1")),
        ("nul", "nul_byte", b'{"question": "Is port 80\x00 open?", "answer": "No."}'),
        ("escaped_nul", "nul_byte", b'{"question": "Is port 81\\u0000 open?", "answer": "No."}'),
    ]
    (PLANTED / "malformed.jsonl").write_bytes(b"\n".join(text for _, _, text in lines) + b"\n")
    truth = [
        _mark("malformed.jsonl", at, "malformed", variant, "ingest", reason) for at, (variant, reason, _) in enumerate(lines, 1) if reason
    ]
    giant = _json({"question": "Is this log of any use?", "answer": "x" * MAX_ROW_BYTES}).encode()
    (PLANTED / "giant.jsonl.gz").write_bytes(
        _gzip(giant + b"\n" + _json(good | {"question": "And with a wall-mounted one?"}).encode() + b"\n")
    )
    return [*truth, _mark("giant.jsonl.gz", 1, "malformed", "row_too_large", "ingest", "row_too_large")]


def _malformed_files() -> Truth:
    """Files that are broken as a whole: a cut gzip, a header with the same column twice, ragged rows."""
    rows = [
        {
            "question": f"Which tariff suits a household of {number}?",
            "answer": f"With {number} people at home, {plan} is the one we would pick.",
        }
        for number, plan in (("two", "Fibre 80"), ("five", "Fibre 300"), ("nine", "Fibre 900"))
    ]
    whole = _gzip("".join(_json(row) + "\n" for row in rows).encode())
    (PLANTED / "truncated.jsonl.gz").write_bytes(whole[: len(whole) - 9])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["question", "answer", "question"], ["Is it raining?", "No.", "Again?"]])
    (PLANTED / "header.csv").write_text(text.getvalue(), encoding="utf-8")
    (PLANTED / "ragged.csv").write_text(
        'question,answer\n"How long is the lead?","Two metres."\n"Only one cell"\n"a","b","c"\n', encoding="utf-8"
    )
    return [
        _mark("truncated.jsonl.gz", 4, "malformed", "truncated_gzip", "ingest", "truncated_file"),
        _mark("header.csv", 2, "malformed", "duplicate_header", "ingest", "duplicate_header"),
        _mark("ragged.csv", 3, "malformed", "short_row", "ingest", "wrong_columns"),
        _mark("ragged.csv", 4, "malformed", "long_row", "ingest", "wrong_columns"),
    ]


def _gzip(content: bytes) -> bytes:
    """Compressed without a time stamp, so that the bytes are the same every time."""
    return gzip.compress(content, mtime=0)


if __name__ == "__main__":
    main()
