"""A LangGraph agent as a strategy. LangGraph and langchain-core are imported when a strategy is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolrec.agents.base import CURRENT, AgentStrategy
from toolrec.data import Pool
from toolrec.llm.base import LLM
from toolrec.records import Message
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.session import ToolSession
from toolrec.tools.base import Tool
from toolrec.util.extras import needed

PURPOSE = "a LangGraph agent"
Build = Callable[[Any, Sequence[Any]], Any]
"""Makes a compiled graph whose state has `messages`, from a chat model and tools of LangChain's."""


class LangGraphStrategy(AgentStrategy):
    """Runs a LangGraph agent on every user.

    Args:
        config: settings of the surrogate.
        pool: the item pool directory.
        llm: the run's own; the agent's model asks it.
        tools: ours; the agent gets them, and `finish`, as tools of LangChain's.
        build: makes the agent; LangGraph's own ReAct agent if not given.

    Raises:
        ConfigError: LangGraph is not installed.

    Examples:
        >>> def planner(**parts):
        ...     return LangGraphStrategy(**parts, build=my_graph)
    """

    def __init__(
        self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool], build: Build | None = None
    ) -> None:
        super().__init__(config=config, pool=pool, llm=llm, tools=tools)
        needed("langgraph.graph", extra="langgraph", purpose=PURPOSE)
        model, offered = _chat_model(llm), [_tool(schema) for schema in self.parts.schemas]
        self._graph = (build or react_agent)(model, offered)

    async def act(self, session: ToolSession) -> None:
        """Invokes the graph on the conversation so far."""
        # A step is a node: a decision takes two of them. The session ends users that decide too often.
        limit = 10 * (self.parts.config.rounds + 1) * (self.parts.config.max_reasks + 1)
        await self._graph.ainvoke({"messages": _to_langchain(session.messages)}, config={"recursion_limit": limit})


def react_agent(model: Any, tools: Sequence[Any]) -> Any:
    """LangGraph's own ReAct agent: model, tools, model, … until the model calls none."""
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    bound = model.bind_tools(tools)

    async def decide(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("decide", decide)
    graph.add_node("tools", ToolNode(tools, handle_tool_errors=False))
    graph.add_edge(START, "decide")
    graph.add_conditional_edges("decide", tools_condition)
    graph.add_edge("tools", "decide")
    return graph.compile()


def _chat_model(llm: LLM) -> Any:
    """A chat model of LangChain's that asks the run's LLM in the name of the current user."""
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langchain_core.utils.function_calling import convert_to_openai_tool

    class RunModel(BaseChatModel):
        """The run's LLM; it is asked asynchronously only."""

        @property
        def _llm_type(self) -> str:
            return "toolrec"

        def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
            return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])

        def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            raise NotImplementedError("the agent of a strategy is asynchronous: use ainvoke")

        async def _agenerate(
            self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
        ) -> ChatResult:
            session = CURRENT.get()
            said = await session.ask(llm, _from_langchain(messages), kwargs.get("tools"))
            reply = AIMessage(content=said.text, tool_calls=_calls(session.messages[-1]))
            return ChatResult(generations=[ChatGeneration(message=reply)])

    return RunModel()


def _tool(schema: Mapping[str, Any]) -> Any:
    """One of our tools for LangChain: what it is given goes to the current user's session, unchecked."""
    from langchain_core.tools import StructuredTool

    function = schema["function"]
    name: str = function["name"]

    async def call(**arguments: Any) -> str:
        return await CURRENT.get().call(name, arguments)

    return StructuredTool(
        name=name, description=function["description"], args_schema=dict(function["parameters"]), coroutine=call
    )


def _calls(echoed: Message) -> list[dict[str, Any]]:
    """The calls of a reply as it is in the conversation: ids are unique there, and names and arguments mended."""
    calls = []
    for call in echoed.get("tool_calls") or ():
        arguments = json.loads(call["function"]["arguments"])
        calls.append({"id": call["id"], "name": call["function"]["name"], "args": arguments, "type": "tool_call"})
    return calls


def _to_langchain(messages: Sequence[Message]) -> list[Any]:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    made: list[Any] = []
    for message in messages:
        content = message.get("content") or ""
        match message["role"]:
            case "system":
                made.append(SystemMessage(content=content))
            case "assistant":
                made.append(AIMessage(content=content, tool_calls=_calls(message)))
            case "tool":
                made.append(ToolMessage(content=content, tool_call_id=message["tool_call_id"]))
            case _:
                made.append(HumanMessage(content=content))
    return made


def _from_langchain(messages: Sequence[Any]) -> list[Message]:
    from langchain_core.messages import convert_to_openai_messages

    made: list[Message] = convert_to_openai_messages(list(messages))
    return made
