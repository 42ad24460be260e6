// The first, plain page: a view of /api/v1 that asks again every few seconds. Everything that comes from the API is
// written as text, never as markup. Elements of lists live as long as what they show, so that focus stays where it is.

const REFRESH_MS = 5_000;
const TIMEOUT_MS = 10_000;
const DAY_MS = 86_400_000;

const $ = (id) => document.getElementById(id);

// ---- The API ----

class ApiError extends Error {}

async function api(method, path, body) {
  const headers = { accept: 'application/json' };
  if (method !== 'GET') headers['x-codex-lb-request'] = '1';
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response;
  try {
    const signal = AbortSignal.timeout(method === 'GET' ? TIMEOUT_MS : 3 * TIMEOUT_MS);
    response = await fetch(`/api/v1${path}`, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch {
    throw new ApiError('The gateway does not answer. Is it running?');
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(answer?.error?.message ?? `The gateway answered with status ${response.status}.`);
  return answer;
}

// ---- Words and numbers ----

const exact = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });

function dollars(micros) {
  const digits = micros < 1_000_000 ? 4 : 2;
  return `$${(micros / 1e6).toFixed(micros === 0 ? 2 : digits)}`;
}

/** "3 d 4 h", "4 h 5 min", "5 min", "20 s" */
function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  return minutes ? `${minutes} min` : `${seconds} s`;
}

function windowName(minutes, fallback) {
  if (!minutes) return fallback;
  if (minutes % 10080 === 0) return minutes === 10080 ? 'Week' : `${minutes / 10080} weeks`;
  if (minutes % 1440 === 0) return `${minutes / 1440} days`;
  return minutes % 60 === 0 ? `${minutes / 60} hours` : `${minutes} minutes`;
}

const ACCOUNT_STATES = {
  active: ['Active', 'good'],
  rate_limited: ['Rate limited', 'warn'],
  quota_exceeded: ['Used up', 'warn'],
  paused: ['Paused', 'warn'],
  reauth_required: ['Must log in again', 'bad'],
  deactivated: ['Closed by ChatGPT', 'bad'],
};
const KEY_STATES = {
  active: ['Active', 'good'],
  disabled: ['Disabled', 'warn'],
  expired: ['Expired', 'warn'],
  revoked: ['Revoked', 'bad'],
};
const REQUEST_STATES = { ok: 'good', error: 'bad', cancelled: 'warn', rejected: 'warn' };

// ---- Elements ----

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Writes only what differs, so that a screen reader is not told the same again. */
function setText(node, text, title = '') {
  if (node.textContent !== text) node.textContent = text;
  if (node.title !== title) node.title = title;
}

function setClass(node, className) {
  if (node.className !== className) node.className = className;
}

const rowsOf = new WeakMap();

/** Makes `list` show `items` in order: one element per id, made once by `create` and filled by its `show`. */
function showList(list, items, create) {
  const before = rowsOf.get(list) ?? new Map();
  const now = new Map();
  let place = list.firstElementChild;
  for (const item of items) {
    const row = before.get(item.id) ?? create(item.id);
    row.show(item);
    now.set(item.id, row);
    if (row.node === place) place = place.nextElementSibling;
    else list.insertBefore(row.node, place);
  }
  for (const [id, row] of before) if (!now.has(id)) row.node.remove();
  rowsOf.set(list, now);
}

/** Runs what a button asks for, once at a time, and then looks again. */
async function act(button, work) {
  // Not `disabled`: that would take the focus away.
  if (button.ariaDisabled === 'true') return;
  button.ariaDisabled = 'true';
  if (!loadFailed) showTrouble(null);
  try {
    await work();
    await refresh();
  } catch (error) {
    showTrouble(error);
  } finally {
    button.ariaDisabled = null;
  }
}

function showTrouble(error) {
  const text = error ? error.message : '';
  setText($('trouble'), text);
  $('trouble').hidden = !text;
}

// ---- Accounts ----

function accountRow(id) {
  const [name, state, detail, flight] = ['p', 'span', 'p', 'p'].map((tag) => element(tag));
  name.className = 'name';
  const plan = element('span');
  const button = element('button', 'plain');
  button.type = 'button';
  const windows = { primary: usageWindow(`p-${id}`), secondary: usageWindow(`s-${id}`) };
  const line = element('p', 'quiet', state, ' · ', plan);
  const top = element('div', 'top', element('div', '', name, line), button);
  const node = element('li', '', top, detail, windows.primary.node, windows.secondary.node, flight);
  detail.className = 'quiet';
  flight.className = 'quiet';
  let paused = false;
  button.addEventListener('click', () => act(button, () => api('POST', `/accounts/${id}/${paused ? 'resume' : 'pause'}`)));
  return {
    node,
    show(account) {
      const now = Date.now();
      const [word, tone] = ACCOUNT_STATES[account.state] ?? [account.state, 'warn'];
      const label = accountName(account);
      paused = account.state === 'paused';
      setText(name, label, account.alias ? account.email : '');
      setText(state, word);
      setClass(state, `state ${tone}`);
      setText(plan, account.plan);
      setText(detail, accountDetail(account, now), account.stateUntil ? date.format(account.stateUntil) : '');
      detail.hidden = !detail.textContent;
      windows.primary.show(account.usage?.primary, '5 hours', now);
      windows.secondary.show(account.usage?.secondary, 'Week', now);
      setText(flight, account.usage ? `${account.inFlight} in flight` : `${account.inFlight} in flight · usage not known yet`);
      setText(button, paused ? 'Resume' : 'Pause');
      button.setAttribute('aria-label', `${paused ? 'Resume' : 'Pause'} ${label}`);
    },
  };
}

function accountDetail(account, now) {
  const parts = [];
  if (account.stateReason) parts.push(account.stateReason);
  if (account.stateUntil) parts.push(`ends in ${span(account.stateUntil - now)}`);
  if (account.coolingUntil) parts.push(`sits out ${span(account.coolingUntil - now)} after failures`);
  return parts.join(', ');
}

function accountName(account) {
  return account.alias || account.email || account.id;
}

function usageWindow(id) {
  const [name, rest] = [element('span'), element('span', 'quiet')];
  const label = element('label', '', name, rest);
  const bar = element('progress');
  bar.max = 100;
  bar.id = id;
  label.htmlFor = id;
  const node = element('div', 'window', label, bar);
  return {
    node,
    show(usage, fallback, now) {
      node.hidden = !usage;
      if (!usage) return;
      const used = usage.usedPercent;
      setText(name, `${windowName(usage.windowMinutes, fallback)}: ${Math.round(used)} % used`, `${used} %`);
      const resets = usage.resetsAt ? `resets in ${span(usage.resetsAt - now)}` : '';
      setText(rest, resets, usage.resetsAt ? date.format(usage.resetsAt) : '');
      bar.value = used;
      setClass(bar, used >= 95 ? 'bad' : used >= 80 ? 'warn' : '');
    },
  };
}

$('import-form').addEventListener('submit', (event) => {
  event.preventDefault();
  act(event.submitter, async () => {
    const files = [];
    for (const file of $('import-files').files) files.push({ name: file.name, content: await file.text() });
    const pasted = $('import-text').value.trim();
    if (pasted) files.push({ name: 'pasted text', content: pasted });
    if (!files.length) throw new ApiError('Choose a file or paste its content first.');
    const { results } = await api('POST', '/accounts/import', { files });
    $('import-results').replaceChildren(...results.map(importResult));
    if (results.every((result) => result.account)) event.target.reset();
  });
});

function importResult({ name, account, error }) {
  if (error) return element('li', 'bad', `${name}: ${error}`);
  const became = account.keptNewerTokens ? 'is in the pool with newer tokens, which stay' : account.wasNew ? 'joined the pool' : 'got new tokens';
  return element('li', '', `${name}: ${account.email || account.id} (${account.plan}) ${became}.`);
}

// ---- Api keys ----

function keyRow(id) {
  const [name, state, detail] = [element('p', 'name'), element('span'), element('span')];
  const button = element('button', 'plain danger', 'Revoke');
  button.type = 'button';
  const node = element('li', '', element('div', 'top', element('div', '', name, element('p', 'quiet', state, ' · ', detail)), button));
  let label = '';
  button.addEventListener('click', () => {
    if (!confirm(`Revoke the key “${label}”? Clients that use it are refused at once, and that is for good.`)) return;
    act(button, () => api('POST', `/api-keys/${id}/revoke`));
  });
  return {
    node,
    show(key) {
      const [word, tone] = KEY_STATES[key.state] ?? [key.state, 'warn'];
      const used = key.lastUsedAt ? `used ${span(Date.now() - key.lastUsedAt)} ago` : 'never used';
      const ends = key.expiresAt && key.state === 'active' ? ` · ends in ${span(key.expiresAt - Date.now())}` : '';
      label = key.name;
      setText(name, key.name);
      setText(state, word);
      setClass(state, `state ${tone}`);
      setText(detail, `${key.visiblePrefix}… · ${used}${ends}`, key.lastUsedAt ? date.format(key.lastUsedAt) : '');
      button.hidden = key.state === 'revoked';
      button.setAttribute('aria-label', `Revoke ${key.name}`);
    },
  };
}

$('create-form').addEventListener('submit', (event) => {
  event.preventDefault();
  act(event.submitter, async () => {
    const days = Number($('create-days').value);
    const body = { name: $('create-name').value, ...(days && { expiresAt: Date.now() + days * DAY_MS }) };
    try {
      const { secret } = await api('POST', '/api-keys', body);
      $('create-trouble').hidden = true;
      event.target.reset();
      $('secret-text').value = secret;
      $('secret').hidden = false;
      $('secret-text').select();
    } catch (error) {
      setText($('create-trouble'), error.message);
      $('create-trouble').hidden = false;
    }
  });
});

$('secret-copy').addEventListener('click', async () => {
  $('secret-text').select();
  try {
    await navigator.clipboard.writeText($('secret-text').value);
    setText($('secret-copy'), 'Copied');
  } catch {
    setText($('secret-copy'), 'Selected: copy it now');
  }
});

$('secret-done').addEventListener('click', () => {
  $('secret-text').value = '';
  $('secret').hidden = true;
  setText($('secret-copy'), 'Copy');
  $('create').querySelector('summary').focus();
});

// ---- Requests ----

function requestRow() {
  const cells = Array.from({ length: 9 }, (_, index) => element('td', index > 4 ? 'number' : ''));
  const state = element('span');
  cells[1].append(state);
  return {
    node: element('tr', '', ...cells),
    show(request) {
      const [when, , model, account, key, input, output, cost, took] = cells;
      setText(when, `${span(Date.now() - request.requestedAt)} ago`, date.format(request.requestedAt));
      setText(state, request.errorCode ?? request.status);
      setClass(state, `state ${REQUEST_STATES[request.status] ?? 'warn'}`);
      setText(model, request.model ?? '–');
      setText(account, names.accounts.get(request.accountId) ?? (request.accountId ? 'deleted' : '–'));
      setText(key, names.keys.get(request.apiKeyId) ?? (request.apiKeyId ? 'unknown' : 'no key'));
      const least = request.isEstimated ? '≥ ' : '';
      setText(input, request.usage ? least + compact.format(request.usage.input) : '–', request.usage ? exact.format(request.usage.input) : '');
      setText(output, request.usage ? least + compact.format(request.usage.output) : '–', request.usage ? exact.format(request.usage.output) : '');
      setText(cost, request.costMicros === null ? '–' : dollars(request.costMicros));
      setText(took, `${(request.totalMs / 1000).toFixed(1)} s`);
    },
  };
}

/** Names by id, for the request log. */
const names = { accounts: new Map(), keys: new Map() };

// ---- The page ----

function showTotals({ totals }) {
  const count = (id, number) => setText($(id), compact.format(number), exact.format(number));
  count('total-requests', totals.requests);
  count('total-input', totals.inputTokens);
  count('total-output', totals.outputTokens);
  setText($('total-cost'), dollars(totals.costMicros), `$${totals.costMicros / 1e6}`);
  setText($('total-errors'), `${exact.format(totals.errorRequests)} ended in an error`);
  setText($('total-cached'), `${compact.format(totals.cachedInputTokens)} from cache`);
  setText($('total-reasoning'), `${compact.format(totals.reasoningTokens)} for reasoning`);
  setText($('total-unpriced'), totals.unpricedRequests ? `${exact.format(totals.unpricedRequests)} requests have no price` : '');
}

function showFaces(name, isEmpty) {
  $(`${name}-loading`).hidden = true;
  $(`${name}-empty`).hidden = !isEmpty;
}

function show([overview, accounts, keys, requests]) {
  names.accounts = new Map(accounts.items.map((account) => [account.id, accountName(account)]));
  names.keys = new Map(keys.items.map((key) => [key.id, key.name]));
  showTotals(overview);
  showFaces('accounts', !accounts.items.length);
  if (!accounts.items.length && !$('accounts').dataset.seen) $('import').open = true;
  $('accounts').dataset.seen = 'yes';
  showList($('accounts'), accounts.items, accountRow);
  showFaces('keys', !keys.items.length);
  const order = [...keys.items].sort((one, other) => (one.state === 'revoked') - (other.state === 'revoked'));
  showList($('keys'), order, keyRow);
  showFaces('requests', !requests.items.length);
  $('requests-box').hidden = !requests.items.length;
  showList($('requests'), requests.items, requestRow);
}

let refreshing = null;

/** Asks for everything once; who asks meanwhile waits for the round after, which sees their change. */
async function refresh() {
  await refreshing;
  refreshing ??= load().finally(() => { refreshing = null; });
  return refreshing;
}

async function load() {
  try {
    const paths = ['/overview?range=24h', '/accounts', '/api-keys', '/requests?limit=20'];
    show(await Promise.all(paths.map((path) => api('GET', path))));
    setText($('freshness'), `as of ${clock.format(Date.now())}`);
    if (loadFailed) showTrouble(null);
    loadFailed = false;
  } catch (error) {
    loadFailed = true;
    showTrouble(error);
    for (const name of ['accounts', 'keys', 'requests']) {
      if (!$(`${name}-loading`).hidden) setText($(`${name}-loading`), 'Nothing to show yet.');
    }
    if ($('freshness').textContent === 'Loading…') setText($('freshness'), '');
  }
}

let loadFailed = false;

async function refreshForEver() {
  if (!document.hidden) await refresh();
  setTimeout(refreshForEver, REFRESH_MS);
}

document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
refreshForEver();
