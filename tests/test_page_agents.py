"""The page's view of agents, in a real browser against real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import WAIT_MS, Server, Tab, serving
from tests.canary import KEY
from tests.catalogue_page import (
    STAND_INS,
    XTTS_LACKS,
    ask,
    begin_anew,
    button,
    check_named,
    open_view,
    send_voice,
    sharing,
    watch_requests,
)
from tests.recordings import recording
from tests.sound_files import wav

FIELD = "#agent-{}"
FAULT = "#agent-{}-fault"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve with engines that are there at once."""
    with serving(tmp_path_factory.mktemp("server"), **STAND_INS) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Share one browser."""
    with sharing(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def tab(server: Server, browser: Tab) -> Tab:
    """Open the view of agents of a server that has the default one alone."""
    for agent in ask(server, "GET", "agents")[1]["agents"]:
        if agent["id"] != "default":
            ask(server, "DELETE", f"agents/{agent['id']}")
    open_view(browser, server, "agents")
    return browser


def add(tab: Tab, name: str, agent_id: str = "") -> None:
    """Fill in a new agent, and add it."""
    button(tab, "New agent").click()
    tab.page.fill(FIELD.format("name"), name)
    tab.page.fill(FIELD.format("id"), agent_id)
    button(tab, "Add agent").click()


def said(tab: Tab) -> str:
    """Return what the view says of the last thing done."""
    return tab.page.inner_text("#agents-view [role=status]")


def wait_until_said(tab: Tab, words: str) -> None:
    tab.wait_for("(words) => document.querySelector('#agents-view [role=status]').textContent.includes(words)", words)


def test_an_agent_is_added_edited_and_deleted(server: Server, tab: Tab) -> None:
    button(tab, "New agent").click()
    assert tab.page.evaluate("document.activeElement.id") == "agent-name"
    tab.page.fill(FIELD.format("name"), "Nora")
    tab.page.fill(FIELD.format("prompt"), "You sell tea.\nYou are brief.")
    tab.page.fill(FIELD.format("greeting"), "Tea?")
    tab.page.fill(FIELD.format("language"), "en-GB")
    tab.page.locator(FIELD.format("speed")).press("ArrowRight")
    tab.page.select_option(FIELD.format("voice"), label="Another, by its name or id")
    tab.page.fill(FIELD.format("voice-name"), "en-gb+f3")
    tab.page.uncheck(FIELD.format("interruptions"))
    tab.page.select_option(FIELD.format("llm"), "eliza")
    button(tab, "Add agent").click()
    wait_until_said(tab, "Nora is saved.")
    kept = {
        "id": "nora",
        "name": "Nora",
        "system_prompt": "You sell tea.\nYou are brief.",
        "greeting": "Tea?",
        "language": "en-GB",
        "speed": 1.05,
        "voice": "en-gb+f3",
        "allow_interruptions": False,
        "stt": None,
        "llm": "eliza",
        "tts": None,
    }
    assert ask(server, "GET", "agents/nora") == (200, kept)
    about = tab.page.inner_text("[data-agent=nora]")
    assert "British English, en-gb+f3" in about
    assert "You sell tea. You are brief." in about

    tab.page.fill(FIELD.format("name"), "Norah")
    tab.page.select_option(FIELD.format("voice"), "")
    button(tab, "Save").click()
    wait_until_said(tab, "Norah is saved.")
    assert ask(server, "GET", "agents/nora") == (200, {**kept, "name": "Norah", "voice": None})

    button(tab, "Delete").click()
    dialog = tab.page.locator("dialog")
    assert "Delete Norah?" in dialog.inner_text()
    assert tab.page.evaluate("document.activeElement.textContent") == "Cancel"
    dialog.get_by_role("button", name="Cancel").click()
    assert ask(server, "GET", "agents/nora")[0] == 200
    button(tab, "Delete").click()
    button(tab, "Delete agent").click()
    wait_until_said(tab, "Norah is deleted.")
    assert ask(server, "GET", "agents/nora")[0] == 404
    assert tab.page.locator("[data-agent]").count() == 1
    tab.check_clean()


def test_a_speed_between_the_ranges_steps_is_kept(server: Server, tab: Tab) -> None:
    ask(server, "POST", "agents", {"id": "slow", "name": "Slow", "speed": 0.333})
    tab.page.reload()
    button(tab, "Edit Slow").click()
    assert "0.33 times" in tab.page.inner_text(FIELD.format("speed-hint"))
    tab.page.fill(FIELD.format("greeting"), "Hello.")
    button(tab, "Save").click()
    wait_until_said(tab, "Slow is saved.")
    assert ask(server, "GET", "agents/slow")[1]["speed"] == 0.333
    tab.check_clean()


def test_what_is_missing_is_said_at_its_field_before_the_server_has_to(tab: Tab) -> None:
    asked = watch_requests(tab, "/agents")
    add(tab, "  ", "no spaces here")
    assert tab.page.inner_text(FAULT.format("name")) == "Give the agent a name."
    assert "letters, digits" in tab.page.inner_text(FAULT.format("id"))
    assert tab.page.evaluate("document.activeElement.id") == "agent-name"
    tab.page.fill(FIELD.format("name"), "Bob")
    assert tab.page.locator(FAULT.format("name")).is_hidden()
    tab.page.fill(FIELD.format("id"), "")
    tab.page.fill(FIELD.format("language"), "english")
    tab.page.select_option(FIELD.format("voice"), label="Another, by its name or id")
    button(tab, "Add agent").click()
    assert "such as en" in tab.page.inner_text(FAULT.format("language"))
    assert "Say which voice" in tab.page.inner_text(FAULT.format("voice-name"))
    assert tab.page.evaluate("document.activeElement.id") == "agent-language"
    assert asked == []
    tab.check_clean()


def check_blamed(tab: Tab, field: str, words: str) -> None:
    """Assert that a field, which has the focus, is said to be wrong, to those who cannot see it too."""
    fault = FAULT.format(field)
    tab.page.wait_for_selector(fault, state="visible")
    assert words in tab.page.inner_text(fault)
    control = tab.page.locator(FIELD.format(field))
    assert control.get_attribute("aria-invalid") == "true"
    assert fault[1:] in (control.get_attribute("aria-describedby") or "").split()
    assert tab.page.evaluate("document.activeElement.id") == FIELD.format(field)[1:]


def test_what_the_server_refuses_is_said_at_its_field_and_nothing_typed_is_lost(server: Server, tab: Tab) -> None:
    ask(server, "POST", "agents", {"id": "taken", "name": "Taken"})
    add(tab, "Ella", "taken")
    check_blamed(tab, "id", "An agent has this id already.")
    tab.page.fill(FIELD.format("id"), "ella")
    # A browser bounds what is typed, not what a script puts there: only the server is left to refuse it.
    tab.page.evaluate("document.getElementById('agent-prompt').value = 'a'.repeat(16385)")
    button(tab, "Add agent").click()
    check_blamed(tab, "prompt", "at most 16384 characters")
    assert tab.page.input_value(FIELD.format("name")) == "Ella"
    assert tab.page.input_value(FIELD.format("id")) == "ella"
    assert ask(server, "GET", "agents/ella")[0] == 404
    tab.page.fill(FIELD.format("prompt"), "You are Ella.")
    button(tab, "Add agent").click()
    wait_until_said(tab, "Ella is saved.")
    assert ask(server, "GET", "agents/ella")[1]["system_prompt"] == "You are Ella."
    tab.check_clean("status of 409", "status of 400")


def test_the_default_agent_is_saved_over_and_never_deleted(server: Server, tab: Tab) -> None:
    before = ask(server, "GET", "agents/default")[1]
    button(tab, "Edit Ada").click()
    assert tab.page.locator("#agent-form").get_by_role("button", name="Delete").count() == 0
    assert "not deleted" in tab.page.inner_text(FIELD.format("name-hint"))
    tab.page.fill(FIELD.format("greeting"), "Good morning.")
    button(tab, "Save").click()
    wait_until_said(tab, "Ada is saved.")
    assert ask(server, "GET", "agents/default") == (200, {**before, "greeting": "Good morning."})
    ask(server, "PUT", "agents/default", before)
    tab.check_clean()


def test_an_agent_that_somebody_deleted_meanwhile_can_be_added_again(server: Server, tab: Tab) -> None:
    add(tab, "Ghost")
    wait_until_said(tab, "Ghost is saved.")
    ask(server, "DELETE", "agents/ghost")
    tab.page.fill(FIELD.format("greeting"), "Boo.")
    button(tab, "Save").click()
    tab.page.wait_for_selector("#agent-form [role=alert]:not(:empty)")
    assert "deleted this agent meanwhile" in tab.page.inner_text("#agent-form [role=alert]")
    button(tab, "Add agent").click()
    button(tab, "Save").wait_for()
    assert ask(server, "GET", "agents/ghost")[1]["greeting"] == "Boo."
    tab.check_clean("status of 404")


def test_edits_outlive_other_views_and_are_discarded_only_when_that_is_confirmed(server: Server, tab: Tab) -> None:
    button(tab, "Edit Ada").click()
    tab.page.fill(FIELD.format("prompt"), "Half a thou")
    tab.page.click("nav a[href='#voices']")
    tab.page.wait_for_selector("#voices-view .entries li")
    tab.page.click("nav a[href='#agents']")
    tab.page.wait_for_selector("#agents-view", state="visible")
    assert tab.page.input_value(FIELD.format("prompt")) == "Half a thou"
    button(tab, "New agent").click()
    tab.page.keyboard.press("Escape")
    assert tab.page.input_value(FIELD.format("prompt")) == "Half a thou"
    button(tab, "Close").click()
    button(tab, "Discard changes").click()
    tab.page.wait_for_selector("#agent-form", state="hidden")
    assert tab.page.evaluate("document.activeElement.textContent") == "Edit"
    assert "Half" not in ask(server, "GET", "agents/default")[1]["system_prompt"]
    button(tab, "Edit Ada").click()
    button(tab, "Close").click()
    assert tab.page.locator("dialog").count() == 0
    tab.check_clean()


def test_engines_that_lack_something_say_what_and_stand_ins_come_behind(server: Server, tab: Tab) -> None:
    engines = ask(server, "GET", "engines")[1]
    button(tab, "New agent").click()
    for kind in ("stt", "llm", "tts"):
        options = tab.page.evaluate(
            """(id) => [...document.getElementById(id).options].map((each) =>
                 [each.value, each.disabled, each.parentElement.label ?? "", each.textContent])""",
            f"agent-{kind}",
        )
        own = next(engine["name"] for engine in engines[kind] if engine["chosen"])
        assert options[0] == ["", False, "", f"The server's choice: {own}"]
        expected = {engine["name"]: engine for engine in engines[kind]}
        assert {value for value, *_ in options[1:]} == set(expected)
        for value, disabled, _, words in options[1:]:
            assert disabled is not expected[value]["usable"]
            assert ("lacks" in words) is disabled
        groups = [group for _, _, group, _ in options[1:]]
        ranks = ["Usable here", "Never chosen by the server itself", "Lacking something"]
        assert groups == sorted(groups, key=ranks.index)
        by_name = {value for value, _, group, _ in options if group == ranks[1]}
        assert by_name == {n for n, engine in expected.items() if engine["usable"] and engine["by_name_only"]}
    tab.page.click("summary:has-text('What the others lack')")
    lacking = tab.page.inner_text("#agent-form .pairs")
    assert "GROQ_API_KEY" in lacking and XTTS_LACKS in lacking
    tab.check_clean()


def test_an_agent_gets_a_kept_voice_and_is_told_if_its_engine_cannot_clone(server: Server, tab: Tab) -> None:
    voice = send_voice(server, "Lena", wav(recording("lj001-0004.wav")))[1]
    tab.page.reload()
    add(tab, "Lea")
    wait_until_said(tab, "Lea is saved.")
    tab.page.select_option(FIELD.format("voice"), label="Lena")
    assert "espeak cannot speak with this voice" in tab.page.inner_text(FIELD.format("voice-hint"))
    button(tab, "Save").click()
    tab.wait_for("() => document.querySelector('[data-agent=lea]').textContent.includes('Lena')")
    assert ask(server, "GET", "agents/lea")[1]["voice"] == voice["id"]
    tab.check_clean()


def test_markup_is_text(server: Server, tab: Tab) -> None:
    name = "<img src=x onerror=alert(1)> <b>Bo</b>"
    add(tab, name, "bo")
    wait_until_said(tab, "is saved.")
    assert said(tab) == f"{name} is saved."
    assert tab.page.inner_text("[data-agent=bo] h3") == name
    button(tab, "Delete").click()
    assert f"Delete {name}?" in tab.page.inner_text("dialog")
    assert tab.page.locator("#agents-view img, #agents-view b, dialog img").count() == 0
    tab.check_clean()


def test_a_double_click_adds_one_agent(server: Server, tab: Tab) -> None:
    button(tab, "New agent").click()
    tab.page.fill(FIELD.format("name"), "Twin")
    asked = watch_requests(tab, "/agents")
    button(tab, "Add agent").dblclick()
    wait_until_said(tab, "Twin is saved.")
    assert [method for method, _ in asked if method == "POST"] == ["POST"]
    assert [agent["id"] for agent in ask(server, "GET", "agents")[1]["agents"]] == ["default", "twin"]
    tab.check_clean()


def test_speaking_with_an_agent_goes_to_the_call(tab: Tab) -> None:
    button(tab, "Speak with Ada").click()
    tab.wait_for("() => location.hash === '#talk' && !document.getElementById('talk-view').hidden")
    tab.check_clean()


def test_every_control_has_a_name_and_fits_a_telephone(tab: Tab) -> None:
    button(tab, "New agent").click()
    tab.page.select_option(FIELD.format("voice"), label="Another, by its name or id")
    check_named(tab, "agents")
    tab.check_clean()


def test_a_server_that_is_gone_is_said_and_asked_again(browser: Tab, tmp_path: Path) -> None:
    tab = browser
    begin_anew(tab)
    with serving(tmp_path, **STAND_INS) as server:
        tab.page.route("**/agents", lambda route: route.abort())
        tab.open(f"{server.url}/#agents")
        tab.page.wait_for_selector("#agents-view [role=alert]:not(:empty)")
        assert "cannot be reached" in tab.page.inner_text("#agents-view [role=alert]")
        tab.page.unroute("**/agents")
        button(tab, "Try again").click()
        tab.page.wait_for_selector("[data-agent=default]")
        assert tab.page.inner_text("#agents-view [role=alert]") == ""
        tab.check_clean("ERR_FAILED")


def test_a_server_with_keys_is_given_one(browser: Tab, tmp_path: Path) -> None:
    tab = browser
    begin_anew(tab)
    with serving(tmp_path, VOCAL_API_KEYS=KEY, **STAND_INS) as server:
        tab.open(f"{server.url}/#agents")
        tab.page.wait_for_selector("dialog")
        assert "asks for an API key" in tab.page.inner_text("dialog")
        tab.page.keyboard.press("Escape")
        tab.page.wait_for_selector("#agents-view [role=alert]:not(:empty)")
        button(tab, "Try again").click()
        tab.page.fill("dialog input", "wrong")
        tab.page.keyboard.press("Enter")
        tab.wait_for("() => document.querySelector('dialog')?.textContent.includes('does not know')")
        tab.page.fill("dialog input", KEY)
        button(tab, "Use key").click()
        tab.page.wait_for_selector("[data-agent=default]", timeout=WAIT_MS)
        add(tab, "Kim")
        wait_until_said(tab, "Kim is saved.")
        assert ask(server, "GET", "agents/kim", key=KEY)[0] == 200
        tab.check_clean("status of 401")
