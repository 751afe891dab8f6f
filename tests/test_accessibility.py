"""The page for those who do not see, point or tell colours apart: axe in every state, and the keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser import (
    STAND_INS,
    WAIT_MS,
    Server,
    Tab,
    answered_after,
    browsing,
    recording,
    serving,
    write_microphone,
)
from tests.canary import KEY
from tests.catalogue_page import button, choose, fill_and_send, wait_until_kept
from tests.sound_files import wav

LONG_ANSWER = "This answer goes on and on, so that it can be cut off. " * 20
TALKATIVE = STAND_INS | {"VOCAL_ECHO_TEXT": LONG_ANSWER}

LOOKS: tuple[tuple[str, int, int, Literal["light", "dark"]], ...] = (
    ("desktop", 1120, 720, "light"),
    ("phone", 380, 820, "dark"),
)
"""Contrast depends on the colours, and layout on the size: nothing on both."""


@dataclass(frozen=True)
class State:
    """What the page shows, and how a person gets there from its address."""

    reach: Callable[[Tab], object]
    path: str = ""
    settings: dict[str, str] = field(default_factory=lambda: STAND_INS)
    has_microphone: bool = True


def wait_here(tab: Tab) -> None:
    tab.wait_for("() => document.getElementById('call').textContent.trim()")


def cut_off(tab: Tab) -> None:
    """Have one answer interrupted and another one going on, with both sides' words on the page."""
    tab.start()
    for typed in ("tell me all", "no, something else"):
        tab.page.fill("#text", typed)
        tab.page.press("#text", "Enter")
        tab.page.wait_for_selector("#captions li[data-role=agent]:last-child .said:not(:empty)", timeout=WAIT_MS)
    tab.page.wait_for_selector("#captions li[data-role=agent] .cut:not([hidden])", timeout=WAIT_MS)


def answer_in_full(tab: Tab) -> None:
    tab.start()
    answered_after(tab, "hello")
    tab.wait_for("() => document.querySelector('#turns li') && document.querySelector('#network-facts dd')")


def open_options(tab: Tab) -> None:
    tab.page.click("#options summary")


def talk_by_button(tab: Tab) -> None:
    open_options(tab)
    tab.page.check("#push-to-talk")
    tab.start()
    tab.page.wait_for_selector("#press", timeout=WAIT_MS)


def fail(tab: Tab) -> None:
    tab.page.click("#call")
    tab.page.wait_for_selector("#alert:not([hidden])", timeout=WAIT_MS)


def be_refused(tab: Tab) -> None:
    """Call a server whose only line is taken."""
    other = tab.page.context.new_page()
    other.goto(tab.page.url)
    other.click("#call")
    other.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)
    tab.page.bring_to_front()
    tab.page.click("#call")
    tab.page.wait_for_selector("body[data-phase=waiting]", timeout=WAIT_MS)


def miss_the_key(tab: Tab) -> None:
    tab.page.click("#call")
    tab.page.wait_for_selector("dialog[open] #dialog-key", timeout=WAIT_MS)


def see_agents(tab: Tab) -> None:
    tab.page.wait_for_selector("#agents-view .entries li", timeout=WAIT_MS)


def misspell_an_agent(tab: Tab) -> None:
    """Fill in a form, and be told what is wrong with it."""
    see_agents(tab)
    button(tab, "New agent").click()
    tab.page.fill("#agent-form input[type=text]", "")
    button(tab, "Add agent").click()
    tab.page.wait_for_selector("#agent-form [aria-invalid=true]")


def ask_to_delete(tab: Tab) -> None:
    """Be asked whether an agent is to be deleted."""
    tab.page.evaluate("""fetch("agents", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id: "bob", name: "Bob" }),
    })""")
    tab.page.reload()
    button(tab, "Edit Bob").click()
    button(tab, "Delete").click()
    tab.page.wait_for_selector("dialog[open]")


def keep_a_voice(tab: Tab) -> None:
    """Have a voice, and another sample looked at."""
    tab.page.wait_for_selector("#voices-view .entries li", timeout=WAIT_MS)
    speech = wav(recording("lj001-0004"))
    choose(tab, "speech.wav", speech)
    fill_and_send(tab, "Clara")
    wait_until_kept(tab, "Clara")
    choose(tab, "speech.wav", speech)


def record(tab: Tab) -> None:
    button(tab, "Record").click()
    button(tab, "Stop").wait_for(timeout=WAIT_MS)


def call_elsewhere(tab: Tab) -> None:
    """Have a call in progress in another tab, and see it on the page of the operators."""
    other = tab.page.context.new_page()
    other.goto(tab.page.url.removesuffix("status"))
    other.click("#call")
    other.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)
    tab.page.bring_to_front()
    tab.page.wait_for_selector("#sessions tbody td", timeout=WAIT_MS)


def ask_to_drain(tab: Tab) -> None:
    tab.page.click("#drain", timeout=WAIT_MS)
    tab.page.wait_for_selector("#ask[open]")


STATES = {
    "idle": State(wait_here),
    "options": State(open_options),
    "answered": State(answer_in_full),
    "interrupted": State(cut_off, settings=TALKATIVE),
    "push to talk": State(talk_by_button),
    "no microphone": State(fail, has_microphone=False),
    "no key": State(miss_the_key, settings=STAND_INS | {"VOCAL_API_KEYS": KEY}),
    "all lines busy": State(be_refused, settings=STAND_INS | {"VOCAL_MAX_SESSIONS": "1"}),
    "agents": State(see_agents, path="#agents"),
    "agents, faults": State(misspell_an_agent, path="#agents"),
    "agents, delete?": State(ask_to_delete, path="#agents"),
    "voices": State(keep_a_voice, path="#voices"),
    "voices, recording": State(record, path="#voices"),
    "status": State(call_elsewhere, path="status"),
    "status, drain?": State(ask_to_drain, path="status"),
    "status, no key": State(lambda tab: tab.page.wait_for_selector("#key"), "status", {"VOCAL_API_KEYS": KEY}),
}


Serve = Callable[[dict[str, str]], Server]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Share one server among the states that have the same settings."""
    running: list[tuple[dict[str, str], Server]] = []
    with ExitStack() as servers:

        def serve(settings: dict[str, str]) -> Server:
            for theirs, server in running:
                if theirs == settings:
                    return server
            server = servers.enter_context(serving(tmp_path_factory.mktemp("server"), **settings))
            running.append((settings, server))
            return server

        yield serve


@contextmanager
def shown(state: State, serve: Serve, folder: Path) -> Iterator[Tab]:
    """Open the page and get it into this state."""
    microphone = write_microphone(folder / "quiet.wav", 5.0) if state.has_microphone else None
    server = serve(state.settings)
    with browsing(folder, microphone) as tab:
        tab.open(f"{server.url}/{state.path}")
        state.reach(tab)
        yield tab


def test_a_call_can_be_led_by_keyboard_alone(serve: Serve, tmp_path: Path) -> None:
    with shown(STATES["idle"], serve, tmp_path) as tab:
        press = tab.page.keyboard.press
        press("Tab")
        press("Enter")
        assert tab.page.evaluate("document.activeElement.id") == "main", "the first link skips what all views share"
        while tab.page.evaluate("document.activeElement.id") != "call":
            press("Tab")
        press("Enter")
        tab.page.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)
        press("Tab")
        press("Space")
        assert tab.page.get_attribute("#mute", "aria-pressed") == "true"
        press("Tab")
        press("Space")
        assert tab.page.evaluate("document.getElementById('options').open")
        while tab.page.evaluate("document.activeElement.id") != "text":
            press("Tab")
        tab.page.keyboard.type("hello")
        press("Enter")
        tab.page.wait_for_selector("#captions li[data-role=agent][data-state=done]", timeout=WAIT_MS)
        while tab.page.evaluate("document.activeElement.id") != "call":
            press("Shift+Tab")
        press("Space")
        tab.page.wait_for_selector("body[data-phase=idle]", timeout=WAIT_MS)
        tab.check_clean()


@pytest.fixture(scope="module", params=STATES)
def tab(request: pytest.FixtureRequest, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Show the page in each of its states."""
    with shown(STATES[request.param], serve, tmp_path_factory.mktemp("state")) as tab:
        yield tab


def test_no_rule_is_broken(tab: Tab) -> None:
    axe = Axe()
    found = []
    for size, width, height, scheme in LOOKS:
        tab.page.set_viewport_size({"width": width, "height": height})
        tab.page.emulate_media(color_scheme=scheme)
        found += [f"{size}, {scheme}: {line}" for line in broken(axe.run(tab.page).response)]
        too_wide = tab.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert too_wide <= 0, f"{size}: the page has to be scrolled sideways by {too_wide} px"
    assert not found, "\n".join(found)


def broken(results: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    """Yield a line for each element that breaks a rule."""
    for rule in results["violations"]:
        nodes = rule["nodes"]
        assert isinstance(nodes, list)
        for node in nodes:
            yield f"{rule['id']}: {node['target']}: {node['failureSummary']}"


CONTROLS = """() => {
  const possible = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  const within = document.querySelector("dialog:modal") ?? document.body;
  window.controls = [...within.querySelectorAll(possible)].filter((control) =>
    control.checkVisibility({ visibilityProperty: true }) && !control.disabled && control.tabIndex >= 0);
  // Where the next Tab goes on from: before all of them.
  const start = document.createElement("button");
  within.prepend(start);
  start.focus();
  start.remove();
  return controls.map((control) => control.id || control.textContent.trim());
}"""

FOCUSED = """() => {
  const focused = document.activeElement;
  const style = getComputedStyle(focused);
  const hasRing = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return [controls.indexOf(focused), hasRing && focused.matches(":focus-visible")];
}"""


def test_tab_reaches_every_control_in_order_and_leaves_again(tab: Tab) -> None:
    names = tab.page.evaluate(CONTROLS)
    assert len(names) >= 2
    for key, order in (("Tab", range(len(names))), ("Shift+Tab", reversed(range(len(names))))):
        reached, unseen = walk(tab, key, 2 * len(names))
        assert reached == list(order), f"{key} in {names} reached {[names[i] for i in reached]}"
        assert not unseen, f"no ring shows the focus on {[names[i] for i in unseen]}"


def walk(tab: Tab, key: str, at_most: int) -> tuple[list[int], list[int]]:
    """Press a key until the focus has left the page; return the controls it came to, and those that did not show it."""
    reached: list[int] = []
    unseen = []
    for _ in range(at_most):
        tab.page.keyboard.press(key)
        control, ring = tab.page.evaluate(FOCUSED)
        if control in reached or (control < 0 and tab.page.evaluate("document.activeElement === document.body")):
            break
        # Browsers stop at what can be scrolled as well: that is theirs.
        if control >= 0:
            reached.append(control)
            unseen += [] if ring else [control]
    return reached, unseen
