"""The web page of the question-answering server: one file, no script from elsewhere.

``/?q=…`` asks at once.
"""

PAGE = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>知识库问答</title>
<style>
  :root { --ink: #1d2330; --soft: #6b7280; --line: #e3e6ec; --accent: #2457c5; }
  * { box-sizing: border-box; }
  body { margin: 0; font: 17px/1.6 system-ui, "PingFang SC", "Noto Sans CJK SC",
         "Microsoft YaHei", sans-serif; color: var(--ink); background: #f6f7f9; }
  main { max-width: 46rem; margin: 0 auto; padding: 3rem 1.2rem; }
  h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
  .hint { color: var(--soft); font-size: .9rem; margin: 0 0 1.4rem; }
  form { display: flex; gap: .6rem; }
  input { flex: 1; min-width: 0; font: inherit; padding: .6rem .8rem; border: 1px solid #c5cad3;
          border-radius: .5rem; background: #fff; }
  input:focus-visible, button:focus-visible { outline: 3px solid #a9c1f5; outline-offset: 1px; }
  button { font: inherit; padding: .6rem 1.3rem; border: 0; border-radius: .5rem;
           background: var(--accent); color: #fff; cursor: pointer; }
  button:disabled { opacity: .5; }
  .card { background: #fff; border: 1px solid var(--line); border-radius: .6rem;
          padding: 1rem 1.2rem; margin-top: 1.2rem; }
  .answer { font-size: 1.35rem; font-weight: 600; overflow-wrap: anywhere; }
  .path { color: var(--soft); overflow-wrap: anywhere; }
  .path b { color: var(--ink); font-weight: 500; }
  h2 { font-size: 1rem; margin: 1.6rem 0 0; color: var(--soft); font-weight: 500; }
  table { width: 100%; border-collapse: collapse; margin-top: .3rem; }
  td { padding: .45rem .3rem; border-top: 1px solid var(--line); vertical-align: top;
       overflow-wrap: anywhere; }
  td:first-child { width: 5.5rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
  .bar { display: block; height: .3rem; border-radius: .2rem; background: var(--accent); }
</style>
</head>
<body>
<main>
  <h1>知识库问答</h1>
  <p class="hint">输入一个问题，例如某人、某物的一项属性。答案来自知识库，模型只决定查哪一条。</p>
  <form id="form">
    <input id="question" maxlength="300" aria-label="问题" placeholder="请输入问题" autofocus required>
    <button id="ask">提问</button>
  </form>
  <div id="result" aria-live="polite"></div>
</main>
<script>
const form = document.getElementById("form"), box = document.getElementById("question");
const button = document.getElementById("ask"), result = document.getElementById("result");

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function path(answer) {
  const line = element("div", "path");
  [answer.subject, answer.predicate, answer.objects.join("、")].forEach((part, i) => {
    if (i) line.append(" → ");
    line.append(element("b", "", part));
  });
  return line;
}

function percent(p) { return p < 0.0005 ? "< 0.1%" : (100 * p).toFixed(1) + "%"; }

function show(answers) {
  result.replaceChildren();
  if (!answers.length) {
    const card = element("div", "card", "没有足够把握的答案。");
    return result.append(card);
  }
  const card = element("div", "card");
  card.append(element("div", "answer", answers[0].objects.join("、")), path(answers[0]),
              element("div", "path", "概率 " + percent(answers[0].probability)));
  result.append(card);
  if (answers.length < 2) return;
  result.append(element("h2", "", "其他可能"));
  const table = element("table");
  for (const answer of answers.slice(1)) {
    const row = element("tr"), share = element("td", "", percent(answer.probability));
    const bar = element("span", "bar");
    bar.style.width = Math.max(100 * answer.probability, 1) + "%";
    share.append(bar);
    const cell = element("td");
    cell.append(path(answer));
    row.append(share, cell);
    table.append(row);
  }
  result.append(table);
}

form.addEventListener("submit", async event => {
  event.preventDefault();
  button.disabled = true;
  result.replaceChildren(element("p", "hint", "正在查找…"));
  try {
    const reply = await fetch("answer", {method: "POST", body: JSON.stringify(
      {questions: [box.value], n_best: 5})});
    const record = await reply.json();
    if (reply.ok) show(record.answers[0]);
    else result.replaceChildren(element("div", "card", "出错：" + record.error));
  } catch (error) {
    result.replaceChildren(element("div", "card", "无法连接服务器。"));
  }
  button.disabled = false;
  box.focus();
});

const asked = new URLSearchParams(location.search).get("q");  // a link to a question: /?q=…
if (asked) {
  box.value = asked;
  form.requestSubmit();
}
</script>
</body>
</html>
"""
