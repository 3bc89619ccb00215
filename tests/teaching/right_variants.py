"""Other right ways to solve the exercises than the solutions of the pages, by function."""

RIGHT = {
    "segment_borders": """
def segment_borders(token_ids, think, end_think):
    def find(tag, start=0):
        while list(token_ids[start : start + len(tag)]) != list(tag):
            start += 1
        return start

    opened = find(think)
    closed = find(end_think, opened)
    return {
        "bos": slice(0, 1),
        "prompt": slice(1, opened),
        "think": slice(opened, opened + len(think)),
        "reasoning": slice(opened + len(think), closed),
        "end_think": slice(closed, closed + len(end_think)),
        "answer": slice(closed + len(end_think), len(token_ids)),
    }
""",
    "mcnemar_p": """
def mcnemar_p(with_reasoning, without_reasoning):
    gained = np.sum(with_reasoning > without_reasoning)
    lost = np.sum(with_reasoning < without_reasoning)
    if gained + lost == 0:
        return 1
    return stats.binomtest(int(min(gained, lost)), int(gained + lost), 0.5).pvalue
""",
    "difference_interval": """
def difference_interval(with_reasoning, without_reasoning, rng):
    difference = np.array(with_reasoning, float) - np.array(without_reasoning, float)
    means = [rng.choice(difference, len(difference)).mean() for _ in range(4000)]
    return np.percentile(means, 2.5), np.percentile(means, 97.5)
""",
    "early_prompt": """
def early_prompt(token_ids, spans, kept, closing):
    if kept == 0:
        return list(token_ids[: spans[0].start]) + list(closing)
    return list(token_ids[: spans[kept - 1].stop]) + list(closing)
""",
    "mass_of_head": """
def mass_of_head(weights, source, target):
    rows = weights[source]
    return float(np.mean([row[target].sum() for row in rows]))
""",
    "mass_from_q_k": """
def mass_from_q_k(q, k, scale, source, target):
    scores = np.where(np.tri(len(q), dtype=bool), q @ k.T * scale, -np.inf)
    weights = np.exp(scores - scores.max(axis=1)[:, None])
    return (weights / weights.sum(axis=1)[:, None])[source, target].sum(axis=1).mean()
""",
    "uniform_null": """
def uniform_null(source, target):
    shares = []
    for i in range(source.start, source.stop):
        seen = [j for j in range(target.start, target.stop) if j <= i]
        shares.append(len(seen) / (i + 1))
    return sum(shares) / len(shares)
""",
    "share_in_top": """
def share_in_top(masses, draws, k):
    counts = np.zeros(masses.shape[1])
    for draw in draws:
        counts[np.argsort(masses[draw].mean(axis=0))[-k:]] += 1
    return counts / len(draws)
""",
    "tracking_of_head": """
def tracking_of_head(rows, reasoning):
    inside = rows[:, reasoning]
    places = [np.average(np.arange(len(row)), weights=row) for row in inside]
    return stats.spearmanr(range(len(places)), places)[0]
""",
    "contribution_of_head": """
def contribution_of_head(weights, values, into, direction):
    written = values @ into
    return np.array([w * (row @ direction) for w, row in zip(weights, written, strict=True)])
""",
    "effect_of_patch": """
def effect_of_patch(patched, clean, corrupted, clean_answer, corrupted_answer):
    runs = (patched, clean, corrupted)
    p, c, k = (run[clean_answer] - run[corrupted_answer] for run in runs)
    return 1 - (c - p) / (c - k)
""",
    "patched_logits": """
def patched_logits(model, donor_ids, receiver_ids, layer, position):
    block = architecture(model).layers[layer]
    with model.lm.trace(list(donor_ids)):
        vector = block.input[:, position].save()
    with model.lm.trace(list(receiver_ids)):
        block.input[:, position] = vector
        logits = model.lm.output.logits[0, -1].save()
    return logits.detach()
""",
    "cue_positions": """
def cue_positions(tokens, words):
    text, starts = "".join(tokens), []
    for token in tokens:
        starts.append(sum(map(len, tokens[: len(starts)])))
    found = []
    for word in words:
        begin = text.lower().find(word.lower())
        while begin >= 0:
            around = text[max(begin - 1, 0) : begin] + text[begin + len(word) :][:1]
            if not re.search(r"\\w", around):
                found.append(begin)
            begin = text.lower().find(word.lower(), begin + 1)
    return [sum(start <= place for start in starts) - 1 for place in sorted(found)]
""",
    "bare_prompt": """
def bare_prompt(tokenizer, question):
    def ids(text):
        return tokenizer.encode(text, add_special_tokens=False)

    opened = ids(f"{question}{INSTRUCTION} ") + ids(R1_TAGS.open)
    thought = ids("\\nOkay, I think I have finished thinking.\\n")
    return [tokenizer.bos_token_id, *opened, *thought, *ids(R1_TAGS.close), *ids("\\n\\n")]
""",
    "knockout_mask": """
def knockout_mask(n_tokens, queries, keys):
    mask = np.zeros((n_tokens, n_tokens), dtype=bool)
    for i in range(n_tokens):
        for j in range(i + 1):
            inside = queries.start <= i < queries.stop and keys.start <= j < keys.stop
            mask[i, j] = not inside
    return mask
""",
    "mean_ablated_logits": """
def mean_ablated_logits(model, token_ids, layer, head, positions, mean):
    start = head * model.head_dim
    projection = architecture(model).out_projections[layer]
    with model.lm.trace(list(token_ids)):
        z = projection.input.clone()
        z[0, positions, start : start + model.head_dim] = mean
        projection.input = z
        logits = model.lm.output.logits[0, -1].save()
    return logits.detach()
""",
}
