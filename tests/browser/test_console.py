"""The console as a person meets it: in a browser, with the keyboard, on a phone, and with a connection that breaks."""

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("aiohttp_sse")
pytest.importorskip("jsonschema")
pytest.importorskip("playwright.async_api", reason="the browser tests need Playwright for Python")

from playwright.async_api import expect

from tests.browser.conftest import PATIENCE, chromium
from tests.browser.delay import measure

expect.set_options(timeout=PATIENCE)

GONE = ("net::ERR_", "[object Event]")
"""What the browser, and htmx, say of a server that is gone."""

SHOTS = os.environ.get("AGENTRUNS_SHOTS")


async def shot(page: Any, name: str) -> None:
    """Keep a picture of the page, where somebody wants to look at it."""
    if SHOTS:
        await page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


async def started(page: Any, job: str) -> None:
    await page.get_by_role("button", name=job, exact=True).click()
    await expect(page.locator("#summary")).to_be_visible()


def badge(page: Any) -> Any:
    return page.locator("#summary .badge")


@pytest.mark.asyncio
async def test_a_run_is_watched_live_from_start_to_end(desk: Any, windows: Any) -> None:
    opened = await desk("conduit", pace=1.0)
    page = await (await windows()).tab(opened.address)
    await expect(page).to_have_url(f"{opened.base}/")
    await expect(page.locator("#connection")).to_have_text("Live")
    await shot(page, "list")

    await started(page, "Send a plumber")
    await page.evaluate("window.isTheSamePage = true")
    await expect(badge(page)).to_have_text("Runs")
    await shot(page, "running")
    await expect(badge(page)).to_have_text("Completed")
    titles = await page.locator("#timeline .title").all_inner_texts()
    assert (titles[0], *titles[-2:]) == ("Begun", "Runs", "Completed")
    assert len(set(titles)) == len(titles)
    await expect(page.locator("#timeline")).to_contain_text("find_contractor")
    await expect(page.locator("#summary")).to_contain_text("1,840 in, 212 out")
    assert await page.evaluate("window.isTheSamePage")
    await shot(page, "completed")


@pytest.mark.asyncio
async def test_the_list_goes_on_as_the_runs_do_and_leaves_the_focus_where_it_is(desk: Any, windows: Any) -> None:
    opened = await desk("conduit", pace=1.0)
    window = await windows()
    page = await window.tab(opened.address)
    await page.evaluate("window.isTheSamePage = true")
    await opened.source.jobs.start("failure")
    link = page.get_by_role("link", name="failure-1")
    await link.focus()
    await opened.source.jobs.start("plumber")

    row = page.get_by_role("listitem").filter(has_text="plumber-2")
    await expect(row.locator(".badge")).to_have_text("Runs")
    await expect(row.locator(".badge")).to_have_text("Completed")
    await expect(page.locator("[data-count=done]")).to_have_text("2")
    await expect(link).to_be_focused()
    assert await page.evaluate("window.isTheSamePage")
    await shot(page, "list-filled")


@pytest.mark.asyncio
async def test_a_link_on_another_page_opens_the_console(desk: Any, windows: Any) -> None:
    opened = await desk("conduit")
    window = await windows()
    page = await window.tab("about:blank")
    await page.set_content(f'<a href="{opened.address}">open</a>')
    await page.get_by_role("link").click()

    await expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    await expect(page).to_have_url(f"{opened.base}/")


@pytest.mark.asyncio
async def test_a_tool_call_of_narrative_is_answered_by_the_form_of_its_schema(desk: Any, windows: Any) -> None:
    opened = await desk("narrative")
    window = await windows()
    window.expected.add("422")
    page = await window.tab(opened.address)
    await started(page, "Pay an invoice")
    card = page.locator(".card")
    await expect(card.get_by_role("heading", name="user-approve_invoice")).to_be_visible()
    await expect(card).to_contain_text("RE-2026-118")

    await card.get_by_role("button", name="Send answer").click()
    await expect(card.get_by_role("alert")).to_contain_text("something must be corrected")
    await expect(card.get_by_text("This is needed.")).to_have_count(2)
    await expect(card.get_by_role("alert")).to_be_focused()
    await shot(page, "corrections")

    await card.get_by_role("radiogroup", name="Approved").get_by_label("Yes").check()
    await card.get_by_label("research").check()
    await card.get_by_label("Pay on").fill("2026-12-01")
    await card.get_by_label("Limit in euros").fill("500")
    await shot(page, "form")
    await card.get_by_role("button", name="Send answer").click()

    await expect(badge(page)).to_have_text("Completed")
    await expect(page.locator("#actions-title")).to_have_text("Nothing to answer")
    told = await page.locator("#timeline .output").inner_text()
    answer = json.loads(told.partition("user-approve_invoice: ")[2])
    assert answer == {"approved": True, "cost_centre": "research", "pay_on": "2026-12-01", "limit_eur": 500}
    await shot(page, "answered")


@pytest.mark.asyncio
async def test_the_questions_of_origami_are_answered_by_choice_and_by_free_text(desk: Any, windows: Any) -> None:
    opened = await desk("origami")
    page = await (await windows()).tab(opened.address)
    await started(page, "Find clinics")
    card = page.locator(".card")
    await card.get_by_label("Up to three sites").check()
    await expect(card.get_by_label("Your answer").first).not_to_be_visible()
    second = card.get_by_role("region", name="Looking up work emails")
    await second.get_by_label("Something else").check()
    await second.get_by_label("Your answer").fill("Only for ten of them")
    await shot(page, "questions")
    await card.get_by_role("button", name="Send answers").click()

    await expect(badge(page)).to_have_text("Completed")
    await expect(page.locator("#timeline .output").last).to_contain_text("Up to three sites.")
    await expect(page.locator("#timeline .output").last).to_contain_text("Only for ten of them.")


@pytest.mark.asyncio
async def test_the_artifacts_of_middesk_are_shown_and_approved(desk: Any, windows: Any) -> None:
    opened = await desk("middesk")
    page = await (await windows()).tab(opened.address)
    await started(page, "Check a watchlist")
    card = page.locator(".card")
    await expect(card.get_by_role("heading", name="Dismiss hit: Marlow Trading FZE")).to_be_visible()
    await expect(card.get_by_role("link", name="Example sanctions register")).to_have_count(2)
    await shot(page, "artifacts")
    await card.get_by_label("Approve").check()
    await card.get_by_label("Note").fill("Looked at both")
    await card.get_by_role("button", name="Send answer").click()

    await expect(badge(page)).to_have_text("Completed")
    await expect(page.locator("#timeline")).to_contain_text("Looked at both")

    await page.get_by_role("link", name="Show messages, steps and tool calls").click()
    await expect(page.get_by_role("heading", name="What middesk tells of the run")).to_be_focused()
    await expect(page.locator("#trace")).to_contain_text("Preparing a proposal")
    found = await page.evaluate(LOOK)
    assert found["unnamed"] == found["ids"] == found["references"] == found["contrasts"] == []
    await shot(page, "trace")


@pytest.mark.asyncio
async def test_a_lost_connection_is_said_and_regained_with_nothing_lost_or_told_twice(desk: Any, windows: Any) -> None:
    opened = await desk("narrative", pace=1.5)
    window = await windows()
    window.expected.update(GONE)
    page = await window.tab(opened.address)
    await started(page, "Just ask")
    await expect(badge(page)).to_have_text("Runs")
    await expect(page.locator("#connection")).to_have_text("Live")

    await opened.stop()
    await expect(page.locator("#connection")).to_have_text("Connection lost, trying again")
    assert await page.locator("#connection").get_attribute("aria-live") == "polite"
    await shot(page, "lost")
    await asyncio.sleep(4.5)  # the run ends meanwhile
    await opened.go_on()

    await expect(page.locator("#connection")).to_have_text("Live")
    await expect(badge(page)).to_have_text("Completed")
    titles = await page.locator("#timeline .title").all_inner_texts()
    assert titles[-1] == "Completed"
    assert titles.count("Begun") == titles.count("Completed") == 1


@pytest.mark.asyncio
async def test_what_is_written_in_a_form_outlives_a_lost_connection(desk: Any, windows: Any) -> None:
    opened = await desk("narrative")
    window = await windows()
    window.expected.update(GONE)
    page = await window.tab(opened.address)
    await started(page, "Book a meeting")
    await page.get_by_label("Refuse").check()
    await page.get_by_label("Reason").fill("I am on leave until")

    await opened.stop()
    await expect(page.locator("#connection")).to_have_text("Connection lost, trying again")
    await opened.go_on()
    await expect(page.locator("#connection")).to_have_text("Live")

    await page.get_by_label("Reason").press("End")
    await page.keyboard.type(" Monday")
    await page.get_by_role("button", name="Send answer").click()
    await expect(page.locator("#timeline .output")).to_contain_text("refused, I am on leave until Monday")


@pytest.mark.asyncio
async def test_a_browser_that_is_only_cut_off_goes_on_from_the_last_event(desk: Any, windows: Any) -> None:
    opened = await desk("narrative", pace=1.5)
    window = await windows()
    window.expected.update(GONE)
    page = await window.tab(opened.address)
    await started(page, "Just ask")
    await expect(badge(page)).to_have_text("Runs")
    await page.evaluate("document.querySelector('#timeline li').dataset.mine = 'yes'")

    await window.context.set_offline(True)
    await asyncio.sleep(1.0)
    await window.context.set_offline(False)

    await expect(badge(page)).to_have_text("Completed")
    titles = await page.locator("#timeline .title").all_inner_texts()
    assert len(set(titles)) == len(titles)
    assert await page.locator("#timeline > li[data-mine]").count() == 1  # it was added to, not made anew


@pytest.mark.asyncio
async def test_a_tab_that_nobody_looks_at_gives_its_connection_back_and_catches_up(desk: Any, windows: Any) -> None:
    opened = await desk("narrative")
    page = await (await windows()).tab(opened.address)
    await page.clock.install()
    await started(page, "Book a meeting")
    await expect(page.get_by_role("button", name="Send answer")).to_be_visible()
    await page.evaluate("document.querySelector('#timeline li').dataset.mine = 'yes'")

    await page.evaluate(LOOK_AWAY, True)
    await page.clock.run_for(20_000)
    await expect(page.locator("#connection")).to_have_text("Paused")
    (waiting,) = await opened.source._inbox.pending()
    await opened.source._inbox.refuse(waiting.action.id, "Not here", run_id=waiting.run.id)
    await page.evaluate(LOOK_AWAY, False)

    await expect(page.locator("#connection")).to_have_text("Live")
    await expect(page.locator("#timeline .output")).to_contain_text("Not here")
    assert await page.locator("#timeline > li[data-mine]").count() == 1
    titles = await page.locator("#timeline .title").all_inner_texts()
    assert titles.count("user-confirm_booking was refused") == 1


LOOK_AWAY = """(away) => {
  Object.defineProperty(document, 'hidden', { configurable: true, value: away });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.mark.asyncio
async def test_a_state_is_in_the_page_soon_after_the_poll_that_brought_it(windows: Any) -> None:
    """The figure itself is measured by `python -m tests.browser.delay`; this is a guard against another order of it."""
    assert chromium() is not None
    found = await measure(2, pace=1.0)

    assert found.seconds
    assert found.median < 1.0


@pytest.mark.asyncio
async def test_two_tabs_see_each_others_answers(desk: Any, windows: Any) -> None:
    opened = await desk("narrative")
    window = await windows()
    one = await window.tab(opened.address)
    await started(one, "Do both")
    two = await window.tab(one.url)
    first, second = one.locator(".card").nth(0), two.locator(".card").nth(1)
    await second.get_by_label("Refuse").check()
    await second.get_by_label("Reason").fill("Being written")

    await first.get_by_label("Approve", exact=True).check()
    await first.get_by_role("button", name="Send answer").click()
    await expect(first).to_contain_text("Your answer was sent.")
    await expect(two.locator(".card").nth(0)).to_contain_text("It was answered.")
    await expect(two.locator("#timeline")).to_contain_text("user-confirm_booking was answered")
    await expect(second.get_by_label("Reason")).to_have_value("Being written")
    await shot(two, "two-tabs")

    await second.get_by_role("button", name="Send answer").click()
    for page in (one, two):
        await expect(badge(page)).to_have_text("Completed")
        await expect(page.locator("#timeline .output")).to_contain_text("Being written")


@pytest.mark.asyncio
async def test_what_is_said_of_a_form_is_seen_even_if_the_event_comes_first(desk: Any, windows: Any) -> None:
    opened = await desk("narrative")
    page = await (await windows()).tab(opened.address)
    await started(page, "Do both")

    async def late(route: Any) -> None:
        answer = await route.fetch()
        await expect(page.locator("#timeline")).to_contain_text("user-confirm_booking was answered")
        await route.fulfill(response=answer)

    await page.route("**/answer", late)
    card = page.locator(".card").nth(0)
    await card.get_by_label("Approve", exact=True).check()
    await card.get_by_role("button", name="Send answer").click()

    await expect(card).to_contain_text("Your answer was sent.")
    await expect(card.get_by_text("Your answer was sent.")).to_be_focused()


@pytest.mark.asyncio
async def test_a_stale_form_says_that_it_is_too_late_and_sends_nothing(desk: Any, windows: Any) -> None:
    opened = await desk("narrative")
    window = await windows()
    window.expected.add("409")
    one = await window.tab(opened.address)
    await started(one, "Do both")
    two = await window.tab(one.url)
    card = two.locator(".card").nth(0)
    await card.get_by_label("Refuse").check()
    await card.get_by_label("Reason").fill("Too slow")
    # This tab hears nothing any more: its form goes stale.
    await two.evaluate("htmx.remove(document.querySelector('[sse-connect]'))")
    await one.locator(".card").nth(0).get_by_label("Approve", exact=True).check()
    await one.locator(".card").nth(0).get_by_role("button", name="Send answer").click()
    await expect(one.locator(".card").nth(0)).to_contain_text("Your answer was sent.")

    await card.get_by_role("button", name="Send answer").click()

    await expect(card.get_by_role("alert")).to_contain_text("Nothing was sent")
    await expect(card.get_by_role("alert")).to_be_focused()
    await shot(two, "stale")
    second = one.locator(".card").nth(1)
    await second.get_by_label("Refuse").check()
    await second.get_by_label("Reason").fill("No")
    await second.get_by_role("button", name="Send answer").click()
    await expect(one.locator("#timeline .output")).to_contain_text('user-confirm_booking: {"approved":true}')


@pytest.mark.asyncio
async def test_the_keyboard_alone_will_do(desk: Any, windows: Any) -> None:
    opened = await desk("narrative")
    page = await (await windows()).tab(opened.address)

    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    assert await page.get_by_role("link", name="Skip to the content").is_visible()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Book a meeting")).to_be_focused()
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Send answer")).to_be_visible()

    await page.locator("#actions-title").focus()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(page.get_by_label("Approve", exact=True)).to_be_checked()
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("Note")).to_be_focused()
    await page.keyboard.type("By keyboard")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Send answer")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(badge(page)).to_have_text("Completed")
    # The form is gone; the focus is not.
    await expect(page.locator("#actions-title")).to_be_focused()
    await expect(page.locator("#timeline .output")).to_contain_text("By keyboard")


@pytest.mark.asyncio
@pytest.mark.parametrize("vendor", ["narrative", "middesk", "origami", "conduit"])
async def test_a_phone_shows_everything_without_scrolling_sideways(desk: Any, windows: Any, vendor: str) -> None:
    opened = await desk(vendor)
    window = await windows(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = await window.tab(opened.address, color_scheme="dark")
    jobs = {"narrative": "Do both", "middesk": "Review a business", "origami": "Find clinics"}
    job = jobs.get(vendor, "Send a plumber")

    async def fits() -> None:
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        for button in await page.get_by_role("button").all():
            box = await button.bounding_box()
            assert box is None or box["height"] >= 44

    await fits()
    await shot(page, f"phone-{vendor}-list")
    await page.get_by_role("button", name=job, exact=True).tap()
    if vendor == "conduit":
        await expect(badge(page)).to_have_text("Completed")
    else:
        await expect(page.get_by_role("button", name=re.compile("Send answer")).first).to_be_visible()
        await page.get_by_role("radio").last.check()
    await fits()
    await shot(page, f"phone-{vendor}-work")


@pytest.mark.asyncio
@pytest.mark.parametrize(("vendor", "job"), [("narrative", "Do both"), ("middesk", "Review a business")])
async def test_everything_has_a_name_a_place_and_a_heading(desk: Any, windows: Any, vendor: str, job: str) -> None:
    opened = await desk(vendor)
    page = await (await windows()).tab(opened.address)
    for wait in (None, job):
        if wait:
            await started(page, wait)
            await expect(page.get_by_role("button", name="Send answer").first).to_be_visible()
        found = await page.evaluate(LOOK)
        assert found["ids"] == [], "an id stands twice"
        assert found["unnamed"] == [], "a field, link or button without a name"
        assert found["references"] == [], "an attribute names an element that is not there"
        assert found["landmarks"] == {"header": 1, "main": 1, "nav": 1}
        assert found["h1"] == 1
        assert all(after <= before + 1 for before, after in zip(found["levels"], found["levels"][1:], strict=False))
        assert found["lang"] == "en"
        assert found["contrasts"] == [], "a text that is hard to read"


LOOK = """() => {
  const all = [...document.querySelectorAll('*')];
  const seen = new Map();
  for (const each of all) if (each.id) seen.set(each.id, (seen.get(each.id) || 0) + 1);
  const named = (each) => (each.labels && [...each.labels].some((label) => label.textContent.trim()))
    || each.getAttribute('aria-label') || each.getAttribute('aria-labelledby') || each.textContent.trim();
  const fields = all.filter((each) => each.matches('a, button, select, textarea, input:not([type=hidden])'));
  const references = [];
  for (const each of all) for (const name of ['aria-labelledby', 'aria-describedby', 'for'])
    for (const id of (each.getAttribute(name) || '').split(' ').filter(Boolean))
      if (!document.getElementById(id)) references.push(id);
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (each) => {
    for (let at = each; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const contrasts = [];
  for (const each of all) {
    const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !each.checkVisibility() || each.closest('head, noscript')) continue;
    const [a, b] = [light(getComputedStyle(each).color), light(behind(each))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) contrasts.push(each.outerHTML.slice(0, 120));
  }
  return {
    ids: [...seen].filter(([, count]) => count > 1).map(([id]) => id),
    unnamed: fields.filter((each) => !named(each)).map((each) => each.outerHTML),
    references,
    landmarks: Object.fromEntries(['header', 'main', 'nav'].map((tag) => [tag, document.querySelectorAll(tag).length])),
    h1: document.querySelectorAll('h1').length,
    levels: [...document.querySelectorAll('h1, h2, h3, h4')].map((each) => +each.tagName[1]),
    lang: document.documentElement.lang,
    contrasts,
  };
}"""


@pytest.mark.asyncio
async def test_without_scripts_everything_works_by_loading_pages(desk: Any, windows: Any) -> None:
    opened = await desk("origami", pace=0.1)
    window = await windows(java_script_enabled=False)
    window.expected.add("422")
    page = await window.tab(opened.address)
    await page.get_by_role("button", name="Find clinics").click()
    for _ in range(100):
        if await page.get_by_role("button", name="Send answers").count():
            break
        await asyncio.sleep(0.1)
        await page.reload()
    await page.get_by_role("button", name="Send answers").click()
    await expect(page.get_by_role("alert")).to_contain_text("something must be corrected")
    await page.get_by_label("Single-site only").check()
    await page.get_by_label("Confirm").check()
    await page.get_by_role("button", name="Send answers").click()
    await expect(page.get_by_role("status").filter(has_text="Your answer was sent.")).to_be_visible()


@pytest.mark.asyncio
async def test_whoever_asks_for_less_motion_sees_none(desk: Any, windows: Any) -> None:
    opened = await desk("conduit", pace=2.0)
    page = await (await windows()).tab(opened.address, reduced_motion="reduce")
    await started(page, "Send a plumber")
    await expect(badge(page)).to_have_text("Runs")

    name = await page.evaluate("getComputedStyle(document.querySelector('#summary .badge'), '::before').animationName")
    assert name == "none"


@pytest.mark.asyncio
async def test_scripts_that_are_not_ours_do_not_run(desk: Any, windows: Any) -> None:
    """The policy, put to the test: what was smuggled into a page stays dead."""
    opened = await desk("conduit")
    window = await windows()
    window.expected.update(["Content Security Policy", "Content-Security-Policy"])
    page = await window.tab(opened.address)

    await page.evaluate("""() => {
      const script = document.createElement('script');
      script.textContent = 'window.wasRun = true';
      document.body.append(script);
      const image = document.createElement('img');
      image.setAttribute('onerror', 'window.wasRun = true');
      image.src = '/static/nothing.png';
      document.body.append(image);
    }""")
    window.expected.add("404")
    await asyncio.sleep(0.3)

    assert await page.evaluate("window.wasRun") is None
    blocked = [each for each in window.heard if "Content Security Policy" in each]
    assert any("script-src" in each and "inline script" in each for each in blocked)
    assert any("script-src" in each and "event handler" in each for each in blocked)
