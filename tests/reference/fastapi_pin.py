"""What the original program answers to many bodies, said by FastAPI and Pydantic 1 themselves.

Prints `crates/server/tests/it/fixtures/fastapi_pin.json`; needs `fastapi==0.85.0`, `pydantic<2`,
`anyio<4` and `requests`.
"""
import json

from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel

class Pin(BaseModel):
    category: str
    index: int
    unique_id: str
    title: str
    description: str
    poster_name: str
    follower_count: str
    tag_list: str
    is_image_or_video: str
    image_src: str
    downloaded: int
    save_location: str

app = FastAPI()
stored = []

@app.post("/pin/")
def take(item: Pin):
    stored.append(json.dumps(dict(item)))
    return item

client = TestClient(app, raise_server_exceptions=False)
right = {"category": "art", "index": 1, "unique_id": "u", "title": "Caf\u00e9 \U0001f600", "description": "a\n\"b\"\\\u0001\u007f/",
         "poster_name": "p", "follower_count": "124k", "tag_list": "N,o", "is_image_or_video": "image",
         "image_src": "https://x/y", "downloaded": 1, "save_location": "Local save in /data/art"}
def changed(**fields):
    row = dict(right); row.update(fields); return json.dumps(row)
def raw(field, text):
    return changed(**{field: "@@"}).replace('"@@"', text)
bodies = [json.dumps(right), json.dumps(right, ensure_ascii=False), json.dumps(dict(reversed(right.items()))),
          changed(more="ignored"), "{}", "[]", "1", "null", '"x"', "", "{", '{"a" 1}', "{'a': 1}", '{"a":1} x', "[1,]", "\n\n  x", '{"a": 1 "b"}', '{"a": "x', '{"a": "x\ny"}', '{"a": "\\x"}', '{"a": [1 2]}', '{"a": 1', '{"a":', '[1', "{1: 2}", "nul", "[]", "[ ]", "[1]",
          json.dumps({k: v for k, v in right.items() if k not in ("title", "index")}),
          changed()[:-1] + ', "title": "again"}']
for text in ["5", "-0", "123456789012345678901234567890", "1.50", "1e3", "1e16", "1e-5", "12345678901234567.0", "true", "false", "null",
             "[]", "{}", '"x"', '""', "0.1", "-2.5E-7", "1E400"]:
    bodies.append(raw("title", text))
for text in ["7528", "-1", "1.9", "-1.9", "-0.5", "1e20", '" +012 "', '"1_000"', '"1.5"', '""', '"_1"', '"-0"', "true", "null", "[1]", "{}", '"x"', '"1e3"',
             "123456789012345678901234567890"]:
    bodies.append(raw("index", text))
out = []
for content_type in ["application/json", None]:
    for body in bodies if content_type else bodies[:1] + bodies[9:11]:
        stored.clear()
        headers = {"content-type": content_type} if content_type else {}
        r = client.post("/pin/", data=body.encode(), headers=headers)
        out.append({"content_type": content_type, "body": body, "status": r.status_code, "answer": r.text, "stored": stored[0] if stored else None})
for content_type in ["application/vnd.api+json", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"]:
    stored.clear()
    r = client.post("/pin/", data=bodies[0].encode(), headers={"content-type": content_type})
    out.append({"content_type": content_type, "body": bodies[0], "status": r.status_code, "answer": r.text, "stored": stored[0] if stored else None})
print(json.dumps(out, indent=0, ensure_ascii=True))
