"""An agent of inspect_ai as a strategy. inspect_ai is imported when a strategy is made."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from toolrec.agents.base import CURRENT, AgentStrategy
from toolrec.data import Pool
from toolrec.llm.base import LLM
from toolrec.records import Message
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.session import ToolSession
from toolrec.tools.base import Tool
from toolrec.util.extras import needed

PURPOSE = "an agent of inspect_ai"
PROVIDER = "toolrec"
"""The provider's name in inspect_ai's registry, which every model needs."""
MAX_CONNECTIONS = 100_000
"""inspect_ai's own bound on calls at once: the run's flow control decides."""

Build = Callable[[Any, Sequence[Any]], Any]
"""Makes an agent of inspect_ai from a model and tools of its own kinds."""


class InspectStrategy(AgentStrategy):
    """Runs an agent of inspect_ai on every user.

    Args:
        config: settings of the surrogate.
        pool: the item pool directory.
        llm: the run's own; the agent's model asks it.
        tools: ours; the agent gets them, and `finish`, as tools of inspect_ai's.
        build: makes the agent; if not given, one that calls the model and its tools until the model calls none.

    Raises:
        ConfigError: inspect_ai is not installed.

    Examples:
        >>> def reacting(**parts):
        ...     return InspectStrategy(**parts, build=react_agent)
    """

    def __init__(
        self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool], build: Build | None = None
    ) -> None:
        super().__init__(config=config, pool=pool, llm=llm, tools=tools)
        needed("inspect_ai.agent", extra="inspect", purpose=PURPOSE)
        offered = [_tool(schema) for schema in self.parts.schemas]
        self._agent = (build or loop_agent)(_model(llm), offered)

    async def act(self, session: ToolSession) -> None:
        """Runs the agent on the conversation so far."""
        from inspect_ai.agent import run

        async with _sample(session):
            await run(self._agent, _to_inspect(session.messages))


def loop_agent(model: Any, tools: Sequence[Any]) -> Any:
    """The plain agent: model, tools, model, … until the model calls none."""
    from inspect_ai.agent import agent
    from inspect_ai.model import execute_tools

    @agent(name="loop")  # which evaluates annotations where the names of optional packages are not known
    def loop() -> Any:
        async def execute(state: Any) -> Any:
            """Plays the user."""
            while True:
                state.output = await model.generate(state.messages, tools=tools)
                state.messages.append(state.output.message)
                if not state.output.message.tool_calls:
                    return state
                state.messages.extend((await execute_tools(state.messages, tools)).messages)

        return execute

    return loop()


def react_agent(model: Any, tools: Sequence[Any]) -> Any:
    """inspect_ai's own ReAct agent without its prompt and `submit`: our prompt and `finish` stand for them."""
    from inspect_ai.agent import react

    return react(prompt=None, tools=list(tools), model=model, submit=False)


@contextlib.asynccontextmanager
async def _sample(session: ToolSession) -> AsyncIterator[None]:
    """A running sample of inspect_ai's around a user: its `react` asks for one. There is no public way to have one without
    a whole evaluation; where the private one is another, agents that need no sample still run.
    """
    try:
        from inspect_ai.dataset import Sample
        from inspect_ai.log._samples import active_sample
        from inspect_ai.log._transcript import Transcript, init_transcript
    except ImportError:
        yield
        return
    transcript = Transcript()
    init_transcript(transcript)
    unlimited = ("message_limit", "token_limit", "cost_limit", "time_limit", "working_limit")
    user = str(session.user_index)
    async with active_sample(
        task=PROVIDER,
        log_location="",
        model=f"{PROVIDER}/run",
        sample=Sample(input="", id=user),
        epoch=1,
        fails_on_error=True,
        transcript=transcript,
        eval_id=PROVIDER,
        sample_uuid=user,
        **dict.fromkeys(unlimited),
    ):
        yield


def _model(llm: LLM) -> Any:
    """A model of inspect_ai's that asks the run's LLM in the name of the current user."""
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        GenerateConfig,
        Model,
        ModelAPI,
        ModelOutput,
        ModelUsage,
        modelapi,
    )

    @modelapi(name=PROVIDER)
    class RunModel(ModelAPI):
        """The run's LLM."""

        def max_connections(self) -> int:
            return MAX_CONNECTIONS

        async def generate(self, input: list[Any], tools: list[Any], tool_choice: Any, config: GenerateConfig) -> ModelOutput:
            session = CURRENT.get()
            said = await session.ask(llm, _from_inspect(input), [_schema(tool) for tool in tools] or None)
            calls = _calls(session.messages[-1])
            reply = ChatMessageAssistant(content=said.text, tool_calls=calls or None, source="generate", model=self.model_name)
            choice = ChatCompletionChoice(message=reply, stop_reason="tool_calls" if calls else "stop")
            used = ModelUsage(
                input_tokens=said.usage.prompt_tokens,
                output_tokens=said.usage.completion_tokens,
                total_tokens=said.usage.prompt_tokens + said.usage.completion_tokens,
            )
            return ModelOutput(model=self.model_name, choices=[choice], usage=used)

    return Model(RunModel("run"), GenerateConfig(max_connections=MAX_CONNECTIONS))


def _schema(tool: Any) -> dict[str, Any]:
    parameters = tool.parameters.model_dump(exclude_none=True)
    return {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": parameters}}


def _tool(schema: Mapping[str, Any]) -> Any:
    """One of our tools for inspect_ai: what it is given goes to the current user's session."""
    from inspect_ai.tool import ToolDef, ToolParams

    function = schema["function"]
    name: str = function["name"]

    async def call(**arguments: Any) -> str:
        return await CURRENT.get().call(name, arguments)

    definition = ToolDef(
        call, name=name, description=function["description"], parameters=ToolParams(**function["parameters"]), parallel=False
    )
    return definition.as_tool()


def _calls(echoed: Message) -> list[Any]:
    from inspect_ai.tool import ToolCall

    return [
        ToolCall(id=call["id"], function=call["function"]["name"], arguments=json.loads(call["function"]["arguments"]))
        for call in echoed.get("tool_calls") or ()
    ]


def _to_inspect(messages: Sequence[Message]) -> list[Any]:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageTool, ChatMessageUser

    made: list[Any] = []
    for message in messages:
        content = message.get("content") or ""
        match message["role"]:
            case "system":
                made.append(ChatMessageSystem(content=content))
            case "assistant":
                made.append(ChatMessageAssistant(content=content, tool_calls=_calls(message) or None))
            case "tool":
                made.append(ChatMessageTool(content=content, tool_call_id=message["tool_call_id"]))
            case _:
                made.append(ChatMessageUser(content=content))
    return made


def _from_inspect(messages: Sequence[Any]) -> list[Message]:
    made: list[Message] = []
    for message in messages:
        plain: Message = {"role": message.role, "content": message.text}
        if message.role == "assistant" and message.tool_calls:
            plain["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
                }
                for call in message.tool_calls
            ]
        elif message.role == "tool":
            plain["tool_call_id"] = message.tool_call_id
            if message.error is not None:
                plain["content"] = f"Error: {message.error.message}"
        made.append(plain)
    return made
