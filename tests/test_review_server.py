"""The review's server: strangers stay out, nothing is lost, and what it tells is what the stages wrote."""

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from curate import decisions
from flows import review
from flows.reviewing.server import MOST_BODY, Server
from tests.reviewing import HOSTILE, ROWS, fresh, serving

Answer = tuple[int, dict[str, Any], dict[str, str]]


@pytest.fixture
def data(reviewable: Path, tmp_path: Path) -> Path:
    return fresh(reviewable, tmp_path / "data")


@pytest.fixture
def server(data: Path) -> Iterator[Server]:
    with serving(data) as found:
        yield found


def ask(server: Server, method: str, path: str, body: bytes | None = None, **headers: str | None) -> Answer:
    """A request with the token, unless a header is given otherwise; `_` stands for `-` in names, None leaves one out."""
    sent = {"Authorization": f"Bearer {server.token}", "Host": f"127.0.0.1:{server.port}"}
    if body is not None:
        sent |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[misc]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    found = orjson.loads(content) if answer.getheader("Content-Type", "").startswith("application/json") else {"content": content}
    connection.close()
    return answer.status, found, {name.lower(): value for name, value in answer.getheaders()}


def get(server: Server, path: str) -> dict[str, Any]:
    status, found, _ = ask(server, "GET", path)
    assert status == 200, found
    return found


def decision(server: Server, row: dict[str, Any], action: str, reviewer: str = "anna", **more: Any) -> bytes:
    """The body of a decision about a row as it is shown now."""
    shown = get(server, f"/api/row?id={row['id']}&reviewer={reviewer}")
    body = {"id": row["id"], "action": action, "reviewer": reviewer, "seen": shown["row"]["seen"], "known": shown["known"]}
    return orjson.dumps(body | more)


# --- who is let in


@pytest.mark.parametrize("path", ["/", "/app.js", "/api/state", "/api/whole?id=0", "/?token=wrong", "/nothing"])
@pytest.mark.parametrize("token", [None, "Bearer ", "Bearer wrong", "Basic eDp5"])
def test_without_the_token_nobody_gets_anything(server: Server, path: str, token: str | None) -> None:
    status, found, headers = ask(server, "GET", path, Authorization=token)
    assert status == 401 and "token" in found["error"]
    assert "set-cookie" not in headers


def test_a_decision_without_the_token_writes_nothing(server: Server, data: Path) -> None:
    body = decision(server, ROWS[0], "drop")
    status, _, _ = ask(server, "POST", "/api/decide", body, Authorization=None)
    assert status == 401 and (data / "decisions.jsonl").read_bytes() == b""


def test_the_address_opens_the_page_once_and_the_cookie_from_then_on(server: Server) -> None:
    status, _, headers = ask(server, "GET", f"/?token={server.token}", Authorization=None)
    assert status == 200
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and server.token not in cookie
    status, found, _ = ask(server, "GET", "/", Authorization=None, Cookie=cookie.partition(";")[0])
    assert status == 200 and b"app.js" in found["content"]


FOREIGN = [
    {"Host": "evil.invalid"}, {"Host": "127.0.0.1"}, {"Host": None}, {"Origin": "http://evil.invalid"}, {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_origin_is_refused_even_with_the_token(server: Server, data: Path, headers: dict[str, Any]) -> None:
    assert ask(server, "GET", "/api/state", **headers)[0] == 403
    body = decision(server, ROWS[0], "drop")
    assert ask(server, "POST", "/api/decide", body, **headers)[0] == 403
    assert (data / "decisions.jsonl").read_bytes() == b""


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


PATHS = [
    "/../params.yaml",
    "/..%2fparams.yaml",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/server.py",
    "/api/../server.py",
    "/app.js/",
    "/\\..\\x",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_anywhere_else(server: Server, path: str) -> None:
    status, found, _ = ask(server, "GET", path)
    assert status == 404 and "error" in found


@pytest.mark.parametrize("name", ["../../dedup_near", "label/../x", "near/../../x", "x" * 5000])
def test_no_queue_or_id_leads_anywhere_else(server: Server, name: str) -> None:
    assert ask(server, "GET", f"/api/open?queue={name}")[0] == 404
    assert ask(server, "GET", f"/api/row?id={name}")[0] == 404


def test_every_answer_forbids_what_the_page_does_not_need(server: Server) -> None:
    for path in ("/", "/app.js", "/api/state"):
        headers = ask(server, "GET", path)[2]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert (headers["x-content-type-options"], headers["cache-control"], headers["referrer-policy"]) == (
            "nosniff",
            "no-store",
            "no-referrer",
        )


# --- bad requests


def test_bodies_that_are_too_large_or_not_what_they_say_are_refused(server: Server, data: Path) -> None:
    body = decision(server, ROWS[0], "drop")

    def status(content: bytes, **headers: str | None) -> int:
        return ask(server, "POST", "/api/decide", content, **headers)[0]

    assert status(b"", Content_Length=str(MOST_BODY + 1)) == 413
    assert status(body, Content_Length=None) == 411
    assert status(body, Content_Length="-5") == 411
    assert status(b"", Content_Length=None, Transfer_Encoding="chunked") == 411
    assert status(body, Content_Type="text/plain") == 415
    assert status(b"{") == 400
    assert status(b"[1]") == 400
    assert ask(server, "POST", "/api/state", body)[0] == 404
    assert ask(server, "PUT", "/api/decide", body)[0] == 501
    assert (data / "decisions.jsonl").read_bytes() == b""


def test_a_request_that_stops_in_the_middle_writes_nothing_and_others_go_on(server: Server, data: Path) -> None:
    body = decision(server, ROWS[0], "drop")
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        head = f"POST /api/decide HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.token}\r\n"
        half.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-5])
        assert get(server, "/api/state")["decisions"] == 0
        half.shutdown(socket.SHUT_WR)
        assert b" 400 " in half.recv(100)
    assert (data / "decisions.jsonl").read_bytes() == b""


WRONG = [
    ({"action": "destroy"}, "action"), ({"action": "relabel"}, "needs 'label'"), ({"reviewer": ""}, "reviewer"),
    ({"reviewer": "a\nb"}, "reviewer"),
    ({"seen": "0" * 32}, "not what was shown"), ({"known": None}, "known"),
    ({"action": "undo", "undoes": "0" * 16}, "no decision of theirs"),
    ({"action": "note", "note": "Call Anna Kowalska on +44 7700 900123."}, "takes for"),
    ({"action": "edit", "messages": [{"role": "root", "content": "x"}]}, "role"), ({"action": "edit", "messages": []}, "needs 'messages'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "word"), WRONG)
def test_a_decision_that_is_not_in_order_is_refused_with_its_reason(server: Server, data: Path, change: dict[str, Any], word: str) -> None:
    body = orjson.dumps(orjson.loads(decision(server, ROWS[0], "drop")) | change)
    status, found, _ = ask(server, "POST", "/api/decide", body)
    assert status == 422 and word in found["error"], found
    assert (data / "decisions.jsonl").read_bytes() == b""


def test_a_row_that_is_not_there_is_not_found(server: Server) -> None:
    body = orjson.dumps({"id": "0" * 32, "action": "drop", "reviewer": "anna", "seen": "0" * 32, "known": []})
    assert ask(server, "POST", "/api/decide", body)[0] == 404


# --- several at once


def test_who_did_not_see_the_other_decision_is_told_and_nothing_is_written(server: Server, data: Path) -> None:
    first, second = decision(server, ROWS[0], "drop"), decision(server, ROWS[0], "keep", reviewer="ben")
    assert ask(server, "POST", "/api/decide", first)[0] == 200
    status, found, _ = ask(server, "POST", "/api/decide", second)
    assert status == 409 and "anna decided" in found["error"]
    assert [each["action"] for each in found["decisions"]] == ["drop"]
    again = orjson.dumps(orjson.loads(second) | {"known": found["known"]})
    assert ask(server, "POST", "/api/decide", again)[0] == 200
    assert [each.reviewer for each in decisions.read(data / "decisions.jsonl")] == ["anna", "ben"]
    assert [each["name"] for each in get(server, "/api/state?reviewer=anna")["queues"] if each["name"] == "differ" and each["count"] == 1]


def test_forty_decisions_at_once_all_reach_the_file(server: Server, data: Path) -> None:
    bodies = [decision(server, ROWS[at % 8], "note", reviewer=f"r{at}", note=f"note {at}") for at in range(40)]
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda body=body: statuses.append(ask(server, "POST", "/api/decide", body)[0])) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40
    assert {each.note for each in decisions.read(data / "decisions.jsonl")} == {f"note {at}" for at in range(40)}


def test_two_servers_over_one_file_see_each_other(data: Path) -> None:
    with serving(data) as one, serving(data) as other:
        assert ask(one, "POST", "/api/decide", decision(one, ROWS[0], "drop"))[0] == 200
        assert get(other, "/api/state?reviewer=anna")["reviewers"] == {"anna": 1}
        assert ask(other, "POST", "/api/decide", decision(other, ROWS[1], "keep", reviewer="ben"))[0] == 200
        assert get(one, "/api/state?reviewer=ben")["reviewers"] == {"anna": 1, "ben": 1}


def test_a_line_that_somebody_broke_by_hand_is_named_and_the_page_goes_on_once_it_is_mended(server: Server, data: Path) -> None:
    path = data / "decisions.jsonl"
    assert ask(server, "POST", "/api/decide", decision(server, ROWS[0], "drop"))[0] == 200
    good = path.read_bytes()
    path.write_bytes(good + b'{"id": 1}\n')
    status, found, _ = ask(server, "GET", "/api/state")
    assert status == 422 and str(path) in found["error"]
    path.write_bytes(good)
    assert get(server, "/api/state?reviewer=anna")["decisions"] == 1


# --- queues


def test_the_queues_hold_what_the_stages_found(server: Server) -> None:
    queues = {each["name"]: each["count"] for each in get(server, "/api/state")["queues"]}
    assert queues["all"] == len(ROWS) - 1 and queues["random"] == 5
    assert queues["near/near-duplicate"] == 1 and queues["near/benchmark"] == 1
    opened = get(server, "/api/open?queue=near/near-duplicate&reviewer=anna")
    item = get(server, f"/api/item?handle={opened['handle']}&at=0&reviewer=anna")
    assert item["beside"]["about"].startswith("Dropped by dedup_near") and not item["beside"]["here"]
    marked = [text for turn in item["row"]["messages"] for text, mark in turn["pieces"] if mark == "differs"]
    assert "It is done." in " ".join(marked)
    opened = get(server, "/api/open?queue=near/benchmark&reviewer=anna")
    item = get(server, f"/api/item?handle={opened['handle']}&at=0&reviewer=anna")
    assert item["row"]["later"]["stage"] == "decontaminate" and item["beside"]["source"] == "sums.jsonl"
    assert any(mark == "span" for turn in item["row"]["messages"] for _, mark in turn["pieces"])


def test_filters_find_rows_by_text_label_file_and_id(server: Server) -> None:
    def rows(**filters: str) -> int:
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        return int(get(server, f"/api/open?queue=all&reviewer=anna&{query}")["count"])

    assert rows(text="VIOLET%20plan") == 1
    assert rows(label="sums") == 1
    assert rows(source="T.JSON") == len(ROWS) - 1
    assert rows(source="nowhere") == 0
    assert rows(text=ROWS[3]["id"]) == 1
    assert rows(text="(.*)") == 0


def test_a_long_row_is_cut_until_it_is_asked_for_whole(server: Server) -> None:
    row = next(each for each in ROWS if HOSTILE[3] in each["messages"][-1]["content"])
    shown = get(server, f"/api/row?id={row['id']}&reviewer=anna")["row"]["messages"][-1]
    assert shown["chars"] == 1_000_000 and shown["shown"] == sum(len(text) for text, _ in shown["pieces"]) <= 12_000
    whole = get(server, f"/api/whole?id={row['id']}&reviewer=anna")["row"]["messages"][-1]
    assert whole["shown"] == 1_000_000


def test_what_others_said_is_held_back_for_a_second_opinion(server: Server) -> None:
    assert ask(server, "POST", "/api/decide", decision(server, ROWS[2], "drop"))[0] == 200
    opened = get(server, "/api/open?queue=second&reviewer=ben")
    item = get(server, f"/api/item?handle={opened['handle']}&at=0&reviewer=ben")
    assert item["decisions"] == [] and item["held_back"]
    body = orjson.loads(decision(server, ROWS[2], "drop", reviewer="ben")) | {"known": item["known"]}
    _, found, _ = ask(server, "POST", "/api/decide", orjson.dumps(body))
    assert {each["reviewer"] for each in found["decisions"]} == {"anna", "ben"}


def test_data_that_was_built_anew_is_told(server: Server, data: Path) -> None:
    assert not get(server, "/api/state")["stale"]
    part = data / "dedup_near/kept/part-00000.parquet"
    content = part.read_bytes()
    part.unlink()
    part.write_bytes(content)
    assert get(server, "/api/state")["stale"]


# --- the command


def test_mistakes_on_the_command_line_are_messages(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as error:
            review.main(["--data", str(data), *arguments])
        return f"{error.value} {capsys.readouterr().err}"

    assert "--sample" in said("--sample", "0")
    assert "no such folder" in said("--data", str(data / "nowhere"))
    with serving(data) as server:
        assert f"port {server.port} is in use" in said("--port", str(server.port))
    (data / "decisions.jsonl").write_bytes(b"{]\n")
    assert "line 1" in said("--port", "0")
