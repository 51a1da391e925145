#!/usr/bin/env python3
"""Checks a gateway with an MCP client that is not ours: the official Python SDK.

    mcp_check.py --url http://127.0.0.1:8087/mcp --era 2026-07-28

The mesh behind it runs the examples `calculator` and `time`, and the suites' plugin `probe`. Each check
prints one line; the exit code is 1 when one of them failed.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
from mcp import Client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

# Logging, ping and setLevel are on their way out of MCP, and clients still use them.
warnings.simplefilter("ignore", MCPDeprecationWarning)

MODERN = "2026-07-28"
LEGACY = "2025-11-25"

MANAGEMENT = {
    "list_plugins",
    "get_plugin_info",
    "get_plugin_metrics",
    "enable_plugin",
    "disable_plugin",
}

# JSON-RPC and MCP.
INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
RESOURCE_NOT_FOUND = -32002
# The mesh.
OVERLOADED = -32011


class CheckFailed(Exception):
    """What a check expected and did not find."""


def expect(condition: object, what: str) -> None:
    if not condition:
        raise CheckFailed(what)


def text_of(content: list[Any]) -> str:
    return "".join(getattr(block, "text", "") for block in content)


async def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Waits for something that a callback brings."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CheckFailed(f"{what}: not within {seconds} s")
        await anyio.sleep(0.02)


async def error_of(work: Awaitable[Any]) -> MCPError:
    try:
        result = await work
    except MCPError as error:
        return error
    raise CheckFailed(f"an error was expected, and this came: {result!r}")


class Checks:
    """One connection, and what is checked over it."""

    def __init__(self, url: str, era: str) -> None:
        self.url = url
        self.era = era
        self.modern = era == MODERN
        self.logs: list[types.LoggingMessageNotificationParams] = []
        self.notes: list[Any] = []
        self.client: Client = self.connect()

    def connect(self, **options: Any) -> Client:
        async def on_log(params: types.LoggingMessageNotificationParams) -> None:
            self.logs.append(params)

        async def on_message(message: Any) -> None:
            self.notes.append(message)

        options.setdefault("mode", MODERN if self.modern else "legacy")
        return Client(
            self.url,
            read_timeout_seconds=30,
            logging_callback=on_log,
            message_handler=on_message,
            # Here it must be the server that answers.
            cache=None,
            **options,
        )

    async def pages(self, one: Callable[..., Awaitable[Any]], field: str) -> tuple[list[Any], int]:
        entries: list[Any] = []
        cursor: str | None = None
        count = 0
        while True:
            page = await one(cursor=cursor)
            entries += getattr(page, field)
            count += 1
            cursor = page.next_cursor
            if cursor is None:
                return entries, count
            expect(count < 1_000, f"{field} never end")

    # The checks. The name after `check_` is what is printed.

    async def check_connect(self) -> str:
        version = self.client.protocol_version
        expect(version == self.era, f"version {version}, not {self.era}")
        if self.modern:
            # A client that does not know beforehand finds out by itself.
            async with self.connect(mode="auto") as other:
                version = other.protocol_version
                expect(version == MODERN, f"auto settled on {version}")
                info, capabilities = other.server_info, other.server_capabilities
        else:
            info, capabilities = self.client.server_info, self.client.server_capabilities
        expect(info is not None and info.name == "plugmesh", f"server is {info}")
        tools = capabilities.tools
        expect(tools is not None and tools.list_changed, f"capabilities: {capabilities}")
        return f"{info.name} {info.version}, protocol {version}"

    async def check_shed(self) -> str:
        error = await error_of(self.client.call_tool("probe_echo", {"text": "x"}))
        data = error.error.data or {}
        expect(error.error.code == OVERLOADED, f"{error.error}")
        expect(data.get("code") == "overloaded" and data.get("retry_after_ms", 0) > 0, f"{data}")
        await self.client.list_tools()
        return error.error.message

    async def check_list_tools(self) -> str:
        tools, pages = await self.pages(self.client.list_tools, "tools")
        names = [tool.name for tool in tools]
        expect(names == sorted(set(names)), f"names are not in order, or twice: {names}")
        wanted = MANAGEMENT | {"calculator_add", "time_current_time", "probe_echo"}
        expect(wanted <= set(names), f"missing: {wanted - set(names)}")
        add = next(tool for tool in tools if tool.name == "calculator_add")
        expect(add.input_schema.get("properties"), f"schema of add: {add.input_schema}")
        again, _ = await self.pages(self.client.list_tools, "tools")
        expect([tool.name for tool in again] == names, "the order changed")
        return f"{len(names)} tools on {pages} page(s)"

    async def check_bad_cursor(self) -> str:
        error = await error_of(self.client.list_tools(cursor="no-such-cursor"))
        expect(error.code == INVALID_PARAMS, f"code {error.code}")
        expect("no-such-cursor" in error.message, error.message)
        return error.message

    async def check_call(self) -> str:
        result = await self.client.call_tool("calculator_add", {"a": 2, "b": 3})
        expect(not result.is_error, f"{result}")
        shown = f"{text_of(result.content)} {result.structured_content}"
        expect("5" in shown, f"2 + 3 is {shown}")
        text = "größe ☃ \u0000 \U0001f600"
        result = await self.client.call_tool("probe_echo", {"text": text})
        expect(text_of(result.content) == text, f"{result.content}")
        return f"2 + 3 = {shown}"

    async def check_large_call(self) -> str:
        text = "x" * 1_000_000
        result = await self.client.call_tool("probe_echo", {"text": text})
        expect(text_of(result.content) == text, "it came back changed")
        return f"{len(text)} bytes there and back"

    async def check_many_calls(self) -> str:
        """Calls beside each other, each with its own answer."""
        answers: dict[int, str] = {}

        async def one(number: int) -> None:
            result = await self.client.call_tool("probe_echo", {"text": f"<{number}>"})
            answers[number] = text_of(result.content)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(one, number)
        wrong = {key: value for key, value in answers.items() if value != f"<{key}>"}
        expect(len(answers) == 50 and not wrong, f"answers to others: {wrong}")
        return "50 at once"

    async def check_management(self) -> str:
        arguments = {"capability": "tools", "status": "started"}
        result = await self.client.call_tool("list_plugins", arguments)
        names = [plugin["name"] for plugin in result.structured_content["plugins"]]
        expect("calculator" in names, f"{names}")
        result = await self.client.call_tool("get_plugin_info", {"name": "calculator"})
        expect("calculator_add" in result.structured_content["mcp"]["tools"], f"{result}")
        result = await self.client.call_tool("get_plugin_metrics", {"detailed": True})
        running = result.structured_content["running_plugins"]
        expect(running >= 3, f"{running} plugins run")
        error = await error_of(self.client.call_tool("list_plugins", {"status": "happy"}))
        expect("status" in error.message, error.message)
        return f"plugins with tools: {', '.join(names)}"

    async def check_resources(self) -> str:
        resources, _ = await self.pages(self.client.list_resources, "resources")
        uris = [str(resource.uri) for resource in resources]
        expect(uris == sorted(set(uris)), f"{uris}")
        expect({"time://zones", "time://current", "probe://data"} <= set(uris), f"{uris}")
        result = await self.client.read_resource("probe://data")
        first = result.contents[0]
        expect(str(first.uri) == "probe://data", f"{first}")
        expect("42" in getattr(first, "text", ""), f"{first}")
        result = await self.client.read_resource("time://current")
        expect(getattr(result.contents[0], "text", ""), f"{result}")
        return f"{len(uris)} resources"

    async def check_templates(self) -> str:
        templates, _ = await self.pages(self.client.list_resource_templates, "resource_templates")
        found = [template.uri_template for template in templates]
        expect("probe://item/{id}" in found, f"{found}")
        result = await self.client.read_resource("probe://item/7")
        text = getattr(result.contents[0], "text", "")
        expect("7" in text, f"{result}")
        return f"probe://item/7 is {text!r}"

    async def check_unknown_resource(self) -> str:
        error = await error_of(self.client.read_resource("nothing://here"))
        wanted = INVALID_PARAMS if self.modern else RESOURCE_NOT_FOUND
        expect(error.code == wanted, f"code {error.code}, not {wanted}: {error.message}")
        expect("nothing://here" in error.message, error.message)
        return f"{error.code} {error.message}"

    async def check_prompts(self) -> str:
        prompts, _ = await self.pages(self.client.list_prompts, "prompts")
        greet = next((prompt for prompt in prompts if prompt.name == "probe_greet"), None)
        expect(greet is not None, f"{[prompt.name for prompt in prompts]}")
        result = await self.client.get_prompt("probe_greet", {"name": "Ada"})
        text = getattr(result.messages[0].content, "text", "")
        expect("Ada" in text, f"{result}")
        error = await error_of(self.client.get_prompt("probe_gret", {"name": "Ada"}))
        expect(error.code == INVALID_PARAMS and "probe_greet" in error.message, error.message)
        return repr(text)

    async def check_progress(self) -> str:
        seen: list[tuple[float, float | None]] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            seen.append((progress, total))

        result = await self.client.call_tool(
            "probe_sleep", {"ms": 650}, progress_callback=on_progress
        )
        expect(not result.is_error, f"{result}")
        done = [progress for progress, _ in seen]
        expect(len(done) >= 3, f"only {len(done)} notifications: {seen}")
        expect(done == sorted(set(done)), f"progress went back: {done}")
        expect(all(total == 650 for _, total in seen), f"{seen}")
        return f"{len(done)} notifications before the result"

    async def check_cancel(self) -> str:
        began = anyio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            began.set()

        async def sleep(group: anyio.abc.TaskGroup) -> None:
            await self.client.call_tool(
                "probe_sleep", {"ms": 20_000}, progress_callback=on_progress
            )
            group.cancel_scope.cancel()
            raise CheckFailed("the call was not cancelled")

        async def running() -> int:
            result = await self.client.call_tool("probe_running", {})
            return int(text_of(result.content))

        started = time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(sleep, group)
            with anyio.fail_after(10):
                await began.wait()
            expect(await running() == 1, "the plugin does not work on it")
            group.cancel_scope.cancel()
        while await running() != 0:
            expect(time.monotonic() - started < 10, "the plugin still works on it")
            await anyio.sleep(0.05)
        return f"the plugin stopped, {time.monotonic() - started:.1f} s after the call began"

    async def check_tool_error(self) -> str:
        result = await self.client.call_tool("probe_fail", {})
        expect(result.is_error, f"no error: {result}")
        text = text_of(result.content)
        expect(text, "the error has no text")
        return repr(text)

    async def check_protocol_error(self) -> str:
        error = await error_of(self.client.call_tool("calculator_ad", {"a": 1, "b": 2}))
        expect(error.code == INVALID_PARAMS, f"code {error.code}")
        expect("calculator_add" in error.message, error.message)
        expect(error.data and error.data.get("code") == "not_found", f"data: {error.data}")
        return f"{error.code} {error.message}"

    async def check_unknown_method(self) -> str:
        reference = types.PromptReference(type="ref/prompt", name="probe_greet")
        error = await error_of(self.client.complete(reference, {"name": "name", "value": "A"}))
        expect(error.code == METHOD_NOT_FOUND, f"code {error.code}: {error.message}")
        return f"completion/complete: {error.code}"

    async def check_ping(self) -> str:
        if self.modern:
            return "not part of this version"
        await self.client.send_ping()
        return "answered"

    async def check_logging(self) -> str:
        """Lines at and above the level that the client asked for, and none below."""
        if self.modern:
            async with self.connect(log_level="warning") as client:
                await self.write_logs(client)
            async with self.connect() as client:
                # Nobody asked for logs.
                before = len(self.logs)
                await client.call_tool("probe_log", {"level": "error", "message": "unasked"})
                expect(len(self.logs) == before, f"unasked: {self.logs[before:]}")
        else:
            await self.client.set_logging_level("warning")
            await self.write_logs(self.client)
        levels = [log.level for log in self.logs]
        loggers = {log.logger for log in self.logs}
        expect(all((logger or "").startswith("probe") for logger in loggers), f"{loggers}")
        return f"got {', '.join(levels)}"

    async def write_logs(self, client: Client) -> None:
        self.logs.clear()
        for level in ("debug", "info", "warning", "error"):
            message = f"a line at {level}"
            await client.call_tool("probe_log", {"level": level, "message": message})

        def texts() -> list[str]:
            return [str(log.data) for log in self.logs]

        def has(level: str) -> bool:
            return any(f"a line at {level}" in text for text in texts())

        # They are in order: once the last is here, those before it are, too.
        await until(lambda: has("error"), 5, "the line at error")
        expect(has("warning"), f"{texts()}")
        expect(not has("info") and not has("debug"), f"{texts()}")

    async def check_list_changed(self, plugin: str, seconds: float) -> str:
        """Takes a plugin out of routing and back, or waits until somebody else changes the tools."""
        changed = anyio.Event()

        async def change() -> None:
            if plugin:
                result = await self.client.call_tool("disable_plugin", {"name": plugin})
                expect(not result.is_error, f"{result}")

        async def listen() -> None:
            async with self.client.listen(tools_list_changed=True) as events:
                ready.set()
                async for _ in events:
                    changed.set()
                    return

        def told() -> bool:
            kind = types.ToolListChangedNotification
            return any(isinstance(note, kind) for note in self.notes)

        started = time.monotonic()
        if self.modern:
            ready = anyio.Event()
            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                with anyio.fail_after(10):
                    await ready.wait()
                await change()
                with anyio.move_on_after(seconds):
                    await changed.wait()
                group.cancel_scope.cancel()
        else:
            self.notes.clear()
            await change()
            with anyio.move_on_after(seconds):
                while not told():
                    await anyio.sleep(0.02)
                changed.set()
        took = time.monotonic() - started
        try:
            expect(changed.is_set(), f"nothing was told within {seconds} s")
            if plugin:
                names = await self.tool_names()
                gone = not any(name.startswith(f"{plugin}_") for name in names)
                expect(gone, f"{plugin} is still listed: {names}")
        finally:
            if plugin:
                await self.client.call_tool("enable_plugin", {"name": plugin})
        if plugin:
            with anyio.fail_after(10):
                while not any(name.startswith(f"{plugin}_") for name in await self.tool_names()):
                    await anyio.sleep(0.05)
        return f"told after {took:.2f} s"

    async def tool_names(self) -> list[str]:
        tools, _ = await self.pages(self.client.list_tools, "tools")
        return [tool.name for tool in tools]

    async def run(self, only: set[str], plugin: str, wait: float) -> int:
        failed = 0
        async with self.client:
            names = [name for name in type(self).__dict__ if name.startswith("check_")]
            for name in names:
                short = name.removeprefix("check_")
                if only and short not in only:
                    continue
                check = getattr(self, name)
                arguments: tuple[Any, ...] = ()
                if short == "shed" and not only:
                    # Only where somebody keeps the probe busy.
                    continue
                if short == "list_changed":
                    if not plugin and not wait:
                        continue
                    arguments = (plugin, wait or 10.0)
                failed += not await report(short, check(*arguments))
        return failed


async def report(name: str, check: Awaitable[str]) -> bool:
    """Prints one line on a check, and how it broke where it did."""
    started = time.monotonic()
    try:
        with anyio.fail_after(60):
            detail = await check
    except CheckFailed as error:
        print(f"FAIL  {name}: {error}", flush=True)
        return False
    except Exception as error:  # whatever it is, the other checks go on
        print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)
        traceback.print_exc()
        return False
    took = time.monotonic() - started
    print(f"ok    {name} ({took:.2f} s): {detail[:200]}", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks a gateway with the official MCP client.")
    parser.add_argument("--url", required=True, help="the gateway, http://127.0.0.1:8087/mcp")
    parser.add_argument("--era", required=True, choices=[LEGACY, MODERN])
    parser.add_argument("--only", default="", help="names of checks, separated by commas")
    parser.add_argument(
        "--toggle",
        default="probe",
        metavar="PLUGIN",
        help="disabled and enabled to change the list of tools; empty: wait for others to change it",
    )
    parser.add_argument(
        "--wait-list-changed",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait for list_changed; 0 with --toggle '' leaves that check out",
    )
    args = parser.parse_args()
    only = {name for name in args.only.split(",") if name}
    checks = Checks(args.url, args.era)
    failed = anyio.run(checks.run, only, args.toggle, args.wait_list_changed)
    print(f"{args.era}: {'all checks passed' if not failed else f'{failed} failed'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
