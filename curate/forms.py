"""Renders conversations by filling in forms: what a template writes around contents is rendered once for every shape. Helper of `format`.

Only for the shipped templates: all they do with a content is to ask whether it is empty, to cut the white space around it, and to write
it. So a form keeps white space and empty contents, and leaves a blank for the rest; tests hold it to Jinja. Every other template may do
more with a content, and is run by Jinja for every conversation.
"""

from collections.abc import Sequence

from curate.template import Codec, Turn, render_many

ROLES = ("system", "user", "assistant", "tool")
MOST = 1 << 12  # forms held: conversations of so many shapes (roles in their order, and white space) have one
Shape = tuple[bool | str | None, ...]  # whether a prompt is asked for; then each turn's role and its content, a blank for what is not white
Form = tuple[str, ...]  # what stands around the blanks, and between these the number of the turn that belongs there
BLANK = "\0"


def render(conversations: Sequence[Sequence[Turn]], coded: Codec, add_generation_prompt: bool) -> list[str]:
    """`template.render_many` of conversations without tools. Raises as it does."""
    if coded.forms is None:
        return render_many(conversations, None, coded.template, add_generation_prompt, coded.special_tokens)
    return [_filled(each, coded.forms, coded, add_generation_prompt) for each in conversations]


def _filled(messages: Sequence[Turn], forms: dict[Shape, Form], coded: Codec, add_generation_prompt: bool) -> str:
    shape: list[bool | str | None] = [add_generation_prompt]
    contents: list[str] = []
    for turn in messages:
        content, role = turn["content"], turn["role"]
        if len(turn) != 2 or role not in ROLES:
            return _plainly(messages, coded, add_generation_prompt)
        text = content.strip() if content else ""
        shape += role, content if not text else BLANK if text == content else content.replace(text, BLANK, 1)
        contents.append(text)
    form = forms.get(tuple(shape))
    if form is None:
        turns = [{"role": role, "content": _marked(at, text)} for at, (role, text) in enumerate(zip(shape[1::2], shape[2::2], strict=True))]
        form = tuple(_plainly(turns, coded, add_generation_prompt).split(BLANK))
        if len(forms) < MOST:
            forms[tuple(shape)] = form
    return "".join([part if at % 2 == 0 else contents[int(part)] for at, part in enumerate(form)])


def _plainly(messages: Sequence[Turn], coded: Codec, add_generation_prompt: bool) -> str:
    return render_many([messages], None, coded.template, add_generation_prompt, coded.special_tokens)[0]


def _marked(at: int, content: bool | str | None) -> bool | str | None:
    return content.replace(BLANK, f"{BLANK}{at}{BLANK}") if isinstance(content, str) else content
