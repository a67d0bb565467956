"""Agents of other frameworks as the strategy of a run.

toolrec evaluate data/demo --strategy examples.agents:langgraph_planner
toolrec evaluate data/demo --strategy examples.agents:inspect_react
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolrec.agents.inspect_agent import InspectStrategy, react_agent
from toolrec.agents.langgraph_agent import LangGraphStrategy


def inspect_react(**parts: Any) -> InspectStrategy:
    """inspect_ai's own `react`."""
    return InspectStrategy(**parts, build=react_agent)


def langgraph_planner(**parts: Any) -> LangGraphStrategy:
    """A LangGraph agent that writes a plan before its first call."""
    return LangGraphStrategy(**parts, build=planner)


def planner(model: Any, tools: Sequence[Any]) -> Any:
    """A graph of three nodes: plan, then decide and tools in turn."""
    from langchain_core.messages import HumanMessage
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    bound = model.bind_tools(tools)

    async def plan(state: dict[str, Any]) -> dict[str, Any]:
        ask = HumanMessage("Before you call a tool: which aspects of this history tell most? Answer in two sentences.")
        return {"messages": [ask, await model.ainvoke([*state["messages"], ask])]}

    async def decide(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("plan", plan)
    graph.add_node("decide", decide)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "decide")
    graph.add_conditional_edges("decide", tools_condition)
    graph.add_edge("tools", "decide")
    return graph.compile()
