
// The page: asks the instance every two seconds, and shows what it says.
const POLL_MS = 2000, TIMEOUT_MS = 5000, STALE_MS = 8000;
const at = id => document.getElementById(id);
const scaled = (value, base, units) => {
  let unit = 0;
  while (Math.abs(value) >= base * 0.9995 && unit < units.length - 1) { value /= base; unit += 1; }
  return `${value >= 100 || value === Math.round(value) ? Math.round(value) : value.toPrecision(value < 1 ? 2 : 3)}${units[unit]}`;
};
const bytes = value => scaled(value, 1024, [' B', ' KiB', ' MiB', ' GiB', ' TiB', ' PiB']);
const rate = value => scaled(value, 1000, ['', 'k', 'M', 'G']) + '/s';
const byteRate = value => bytes(value) + '/s';
const count = value => value.toLocaleString('en');
const time = ms => {
  if (ms < 1) return ms ? `${ms.toPrecision(2)} ms` : '0 ms';
  if (ms < 1000) return `${ms < 10 ? +ms.toPrecision(2) : Math.round(ms)} ms`;
  if (ms < 60e3) return `${+(ms / 1000).toPrecision(ms < 10e3 ? 2 : 3)} s`;
  if (ms < 3600e3) return `${+(ms / 60e3).toPrecision(3)} min`;
  return ms < 48 * 3600e3 ? `${+(ms / 3600e3).toPrecision(3)} h` : `${Math.round(ms / 86400e3)} days`;
};
const or = (value, format, none = '–') => value === null || value === undefined ? none : format(value);
const clock = ms => new Date(ms).toLocaleString();
const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
// Only what has changed is touched: a selection stays, and nothing is read aloud twice.
const say = (element, text) => {
  element.hidden = !text;
  if (element.textContent !== (text || '')) element.textContent = text || '';
};

const charts = {
  lag: new Chart('Lag', time, [''], 'time'),
  rate: new Chart('Events', rate, [''], 'number'),
  latency: new Chart('PostgreSQL to Kafka', time, ['median', 'p99'], 'time'),
  kept: new Chart('Log at the server', bytes, ['kept', 'behind'], 'bytes'),
  bytes: new Chart('Bytes received', byteRate, [''], 'bytes'),
  received: new Chart('Received to Kafka', time, ['median', 'p99'], 'time'),
};
at('charts').append(...Object.values(charts).map(chart => chart.element));

function tiles(status) {
  const { lag, rates, slot, memory, history } = status;
  const total = status.latencies.stages.find(stage => stage.stage === 'source_to_committed');
  const safe = slot && slot.safe_bytes !== null ? `${bytes(Math.max(0, slot.safe_bytes))} left` : 'no limit at the server';
  const loss = slot && slot.seconds_to_loss !== null ? `, lost in ${time(slot.seconds_to_loss * 1000)}` : '';
  const shown = [
    ['Lag', time(lag.ms), `${bytes(lag.bytes)} of log`],
    ['Events', or(rates.events_per_second, rate), or(rates.bytes_per_second, byteRate, '')],
    ['Latency, median', or(total && total.p50_ms, time), total && total.p99_ms !== null ? `p99 ${time(total.p99_ms)}` : 'nothing in the last minute'],
    ['Slot', slot ? slot.status || 'unknown' : 'not seen yet', slot ? `${or(slot.kept_bytes, bytes)} kept, ${safe}${loss}` : ''],
    ['In flight', bytes(memory.queue_bytes), `of ${bytes(memory.queue_limit_bytes)}`],
    ['State', status.state.name, `for ${time(Math.max(0, status.now_ms - status.state.since_ms))}, ${plural(status.sessions, 'session', 'sessions')}`],
  ];
  at('tiles').replaceChildren(...shown.map(([term, value, more]) => make('div', {}, make('dt', { textContent: term }),
    make('dd', { className: 'value', textContent: value }), make('dd', { className: 'more', textContent: more }))));
}

function positions({ server, received, published, committed, confirmed }) {
  const stops = [['Server', 'the end of its log', server], ['Received', 'by pgsluice', received],
    ['Published', 'in a Kafka transaction', published], ['Committed', 'in Kafka', committed],
    ['Confirmed', 'to PostgreSQL', confirmed]];
  at('positions').replaceChildren(...stops.map(([name, where, position], index) => {
    const next = stops[index + 1] && stops[index + 1][2];
    const gap = position && next ? Math.max(0, position.bytes - next.bytes) : null;
    const parts = [make('h3', { textContent: name }), make('code', { textContent: position ? position.lsn : 'not yet' }),
      make('small', { textContent: where })];
    if (gap !== null) {
      const said = gap ? `${bytes(gap)} behind` : '';
      parts.push(make('p', { className: 'gap', textContent: said }));
    }
    return make('li', { className: position ? gap ? 'behind' : '' : 'unknown' }, ...parts);
  }));
}

function failures(status) {
  at('failures-section').hidden = !status.failures.length;
  at('failures').replaceChildren(...status.failures.slice(0, 50).map(failure => make('li', {},
    make('p', { className: 'first' }, make('code', { textContent: failure.code }),
      make('span', { className: 'muted', textContent: clock(failure.last_ms) + (failure.times > 1 ? `, ${plural(failure.times, 'time', 'times')} since ${clock(failure.first_ms)}` : '') })),
    make('p', { textContent: failure.text }),
    make('p', { textContent: `${failure.meaning} ${failure.fix}` }),
    make('p', { className: 'muted' }, 'More: ', make('code', { textContent: `pgsluice explain ${failure.code}` })))));
  const { total, more, tables } = status.quarantine;
  at('quarantine-section').hidden = !total;
  at('quarantine').replaceChildren(...tables.map(held => make('li', {},
    make('p', { className: 'first' }, make('strong', { textContent: held.table }), make('span', { className: 'muted', textContent: `since ${clock(held.since_ms)}` })),
    make('p', { textContent: held.reason }),
    make('p', { className: 'muted' }, 'Waits in ', make('code', { textContent: held.letters })))),
    ...(more ? [make('li', { textContent: `and ${count(more)} more` })] : []));
}

const COPY_WORDS = { not_copied: 'not copied', waiting: 'waiting', copying: 'copying', put_off: 'tried again later',
  impossible: 'cannot be copied', stopped: 'stopped', copied: 'copied' };
function copies(known) {
  const going = known && known.tables.filter(table => !['copied', 'not_copied'].includes(table.state));
  at('copies-section').hidden = !known || (!known.copied && !going.length);
  if (!known) return;
  say(at('copies-summary'), `${count(known.copied)} of ${plural(known.total, 'table', 'tables')} copied${known.paused ? '; paused: `pgsluice snapshot resume` goes on' : ''}${known.more ? `; ${count(known.more)} are not shown` : ''}`);
  at('copies').replaceChildren(...going.map(table => {
    const share = table.rows_estimated ? Math.min(1, table.rows / table.rows_estimated) : null;
    const left = table.rows_estimated > table.rows && table.rows_per_second ? `, about ${time((table.rows_estimated - table.rows) / table.rows_per_second * 1000)} left` : '';
    const said = `${COPY_WORDS[table.state] || table.state}, ${plural(table.rows, 'row', 'rows')}, ${bytes(table.bytes)}${or(table.rows_per_second, value => `, ${rate(value)}`, '')}${left}`;
    const parts = [make('p', { className: 'line' }, make('strong', { textContent: table.table }), make('span', { textContent: said }))];
    if (share !== null) {
      const inner = make('div', {});
      inner.style.width = `${(share * 100).toFixed(1)}%`;
      parts.push(make('div', { className: 'bar', role: 'progressbar', 'aria-label': table.table, 'aria-valuenow': Math.floor(share * 100), 'aria-valuemin': 0, 'aria-valuemax': 100 }, inner));
    }
    if (table.problem) parts.push(make('p', { className: 'wrap', textContent: table.problem }));
    return make('li', {}, ...parts);
  }));
}

const row = (name, cells) => make('tr', {}, make('th', { scope: 'row', textContent: name }),
  ...cells.map(cell => make('td', { className: cell === '0' || cell === '–' ? 'none' : '', textContent: cell })));
function tables({ total, more, busiest }) {
  say(at('tables-summary'), total ? `Events of ${plural(total, 'table', 'tables')} since the program was started${more ? `; the busiest ${busiest.length} are shown` : ''}.` : 'No change of any table was seen since the program was started.');
  at('tables').replaceChildren(...busiest.map(table => {
    const operations = [table.insert, table.update, table.delete, table.truncate, table.dead_letter];
    return row(`${table.schema}.${table.table}`, [operations.reduce((sum, one) => sum + one, 0), ...operations].map(count));
  }));
}

const STAGES = { encode: 'Decode and encode', queue: 'Wait for the publisher', kafka_commit: 'Commit in Kafka',
  received_to_committed: 'Received to committed', source_to_committed: 'PostgreSQL to Kafka, by both clocks' };
function stages(shown) {
  at('stages').replaceChildren(...shown.map(stage => row(STAGES[stage.stage] || stage.stage,
    [or(stage.p50_ms, time), or(stage.p99_ms, time), count(stage.count)])));
}

function draw(status) {
  const h = status.history, now = status.now_ms;
  charts.lag.set(h.at_ms, [h.lag_ms], now);
  charts.rate.set(h.at_ms, [h.events_per_second], now);
  charts.bytes.set(h.at_ms, [h.bytes_per_second], now);
  charts.latency.set(h.at_ms, [h.source_to_committed_p50_ms, h.source_to_committed_p99_ms], now);
  charts.received.set(h.at_ms, [h.received_to_committed_p50_ms, h.received_to_committed_p99_ms], now);
  charts.kept.set(h.at_ms, [h.kept_bytes, h.lag_bytes], now);
}

function verdict({ level, text, detail, advice, code }) {
  at('verdict').dataset.level = level;
  say(at('headline'), text);
  say(at('detail'), detail);
  say(at('advice'), advice);
  at('explain').hidden = !code;
  at('explain').querySelector('code').textContent = code ? `pgsluice explain ${code}` : '';
}

function show(status) {
  document.title = `${status.name}: ${status.verdict.level} – pgsluice`;
  say(at('name'), status.name);
  say(at('version'), `pgsluice ${status.version}, up ${time(Math.max(0, status.now_ms - status.started_ms))}`);
  verdict(status.verdict);
  tiles(status);
  positions(status.positions);
  failures(status);
  copies(status.copies);
  tables(status.tables);
  stages(status.latencies.stages);
  draw(status);
}

let answered = null, began = Date.now(), why = '';
async function ask() {
  try {
    const answer = await fetch('status', { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) throw new Error(`It answers ${answer.status}.`);
    const status = await answer.json();
    if (status.format !== 1) throw new Error('It has another version than this page: load it again.');
    try {
      show(status);
      answered = Date.now();
    } catch (error) {
      console.error(error);
      why = `What it says cannot be shown: ${error.message}`;
    }
  } catch (error) {
    why = { TimeoutError: 'It does not answer in time.', TypeError: 'The connection is refused, or was lost.' }[error.name] || error.message;
  }
  tick();
  setTimeout(ask, POLL_MS);
}
function tick() {
  const silent = Date.now() - (answered ?? began), stale = silent > STALE_MS;
  document.body.classList.toggle('stale', stale);
  say(at('age'), answered === null ? 'no answer yet' : stale ? `from ${time(Math.round(silent / 1000) * 1000)} ago` : 'live');
  if (stale) {
    document.title = 'no answer – pgsluice';
    verdict({ level: 'problem', text: 'The instance does not answer.', detail: why,
      advice: `${answered === null ? '' : `What is below is from ${clock(answered)}. `}See whether the process runs, and what its log ends with: what was not committed is read again at its next start.` });
  }
}
setInterval(tick, 1000);
ask();
