"""For mdbook: a link to a file that is no page of the book becomes that file's name, since the book goes without it."""

import json
import os
import re
import sys

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def without_outside(content, folder):
    def plain(found):
        text, target = found.groups()
        path = os.path.normpath(os.path.join(folder, target.split("#")[0]))
        if "://" in target or not path.startswith(".."):
            return found.group(0)
        name = path.removeprefix("../")
        return text if name in text else f"{text} (`{name}`)"

    parts = re.split(r"(^```.*?^```$)", content, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(plain, part) for part in parts)


def walk(items):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            chapter["content"] = without_outside(chapter["content"], os.path.dirname(chapter["path"] or ""))
            walk(chapter["sub_items"])


if sys.argv[1:2] == ["supports"]:
    sys.exit(0)
_, book = json.load(sys.stdin)
walk(book.get("items") or book["sections"])
json.dump(book, sys.stdout)
