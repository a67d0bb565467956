"""What an LLM wrote, read for what it means: one module for each kind of repair.

Every repair is bounded in size, has a name, and is counted as `repaired_NAME` beside the user's figures. What could mean two
things is not repaired but asked for again (decision 19).

    json_text      broken JSON: fences, single quotes, a missing bracket, text behind, two objects glued together
    tool_names     `functions.retrieve`, `default_api:retrieve`, `retrieve<|channel|>json`, `retrieve()`
    arguments      fields under other keys, wrapped, or of another type
    leaked_calls   tool calls written into the text
    text_actions   `Action 1: Retrieve[genre, 20]` and its variants
    final_lists    a reply without a call that is clearly a final list

Item ids are read by `toolrec.memory`, which knows the pool.
"""
