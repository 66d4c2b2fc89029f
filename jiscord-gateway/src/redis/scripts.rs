//! What runs inside Redis, so that it happens as one thing.
//!
//! The hash `log` holds the log's state: `run` and `epoch` (the server's run that the epoch belongs to), `last` and `floor`
//! (positions), `begun` (the position at which the epoch began), and for each shard of a journal `relay:<shard>` (Unix
//! milliseconds up to which all of it is in this log). `active` is a sorted set of topics by the position of their last event,
//! `log:<topic>` a stream of a topic's events, `seen:<event id>` the position that an event was given.

use std::sync::LazyLock;

use redis::Script;

/// Appends an event once and publishes it.
///
/// An event that was seen is not published again, one that may have been forgotten since is refused. A caller that knows
/// another epoch than this log's is refused too: a server that began again with older data would give out positions anew.
pub(crate) static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
-- KEYS 1 log  2 active  3 seen:<event id>  4.. log:<topic>
-- ARGV 1 epoch  2 op and channel id or -  3 frame  4 entries kept  5 seconds kept  6 the event id's microseconds
--      7 a channel for the plain frame, or empty  8.. topics, distinct, in the order of KEYS 4..
local log = redis.call('HMGET', KEYS[1], 'epoch', 'last')
if log[1] ~= ARGV[1] then return redis.error_reply('EPOCH log was opened anew') end
local seen = redis.call('GET', KEYS[3])
if seen then return {0, seen} end
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
if now - ARGV[6] > 540000000 then return redis.error_reply('LATE may have been forgotten') end
local p = string.format('%.0f', math.max(tonumber(log[2] or '0') + 1, now)) -- tostring() loses digits
redis.call('HSET', KEYS[1], 'last', p)
redis.call('SET', KEYS[3], p, 'EX', 600)
for i = 4, #KEYS do
  local topic = ARGV[i + 4]
  local prev = redis.call('ZSCORE', KEYS[2], topic) or '0'
  redis.call('XADD', KEYS[i], 'MAXLEN', '~', ARGV[4], p .. '-0', 'v', prev, 'h', ARGV[2], 'f', ARGV[3])
  redis.call('EXPIRE', KEYS[i], ARGV[5])
  redis.call('ZADD', KEYS[2], p, topic)
  redis.call('PUBLISH', topic, p .. ' ' .. prev .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
end
if ARGV[7] ~= '' then redis.call('PUBLISH', ARGV[7], string.sub(ARGV[3], 1, -2) .. ',"p":' .. p .. '}') end
return {1, p}
"#,
    )
});

/// Opens the log, on every connection. In another run of the server it is a new log, since its tail may be lost.
pub(crate) static OPEN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
-- KEYS 1 log   ARGV 1 a fresh random name
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local log = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'last', 'floor')
if log[1] ~= run then
  local now = redis.call('TIME')
  local floor = string.format('%.0f', math.max(tonumber(log[3] or '0') + 1, now[1] * 1000000 + now[2]))
  redis.call('DEL', KEYS[1]) -- what relays had done was of the log before
  redis.call('HSET', KEYS[1], 'run', run, 'epoch', ARGV[1], 'last', floor, 'floor', floor, 'begun', floor)
  log = {run, ARGV[1], floor, floor}
end
return {log[2], log[3], log[4]}
"#,
    )
});

/// Forgets which topics were active longer ago than their streams are kept.
pub(crate) static TRIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
-- KEYS 1 log  2 active   ARGV 1 seconds kept
local log = redis.call('HMGET', KEYS[1], 'last', 'floor')
local now = redis.call('TIME')
local to = math.min((now[1] - ARGV[1]) * 1000000, tonumber(log[1] or '0'))
if to > tonumber(log[2] or '0') then
  to = string.format('%.0f', to)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', to)
  redis.call('HSET', KEYS[1], 'floor', to)
end
"#,
    )
});

/// Claims the place of a device, and evicts whoever had it, and the longest silent of too many devices. A session that resumes
/// claims nothing where another session has the place, nor does any where a later attempt of the same client has it. One attempt at
/// one instance has one fence, however often it is asked.
///
/// The hash `sessions:<user>` has for each device `<fence> <microseconds at which it was heard> <holder> <instance>`, where a
/// holder is `<session> <client> <attempt>`; the nameless device is the empty field.
pub(crate) static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
-- KEYS 1 sessions:<user>
-- ARGV 1 device  2 holder  3 instance  4 most devices  5 the user's topic  6 seconds kept  7 whether it resumes
local mine, of, number = string.match(ARGV[2], '(%S+) (%d+) (%d+)')
local function evict(device, fence, by)
  local name = device == '' and 'null' or cjson.encode(device)
  redis.call('PUBLISH', ARGV[5], '0 0 EVICT - {"op":"EVICT","d":{"device":' .. name .. ',"fence":' .. fence .. by .. '}}')
end
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local there = '^(%d+) %d+ (%S+) (%d+) (%d+) (.*)$'
local old, session, client, attempt, instance = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', there)
if session and ARGV[7] == '1' and session ~= mine then return {} end
if client == of and tonumber(number) < tonumber(attempt) then return {} end
if session == mine and client == of and attempt == number and instance == ARGV[3] then return {ARGV[1], old} end
local fence = string.format('%.0f', math.max((tonumber(old) or 0) + 1, now))
redis.call('HSET', KEYS[1], ARGV[1], fence .. ' ' .. string.format('%.0f', now) .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[6])
evict(ARGV[1], fence, ',"attempt":{"client":' .. of .. ',"number":' .. number .. '}')
local answer = {ARGV[1], fence}
local all = redis.call('HGETALL', KEYS[1])
local others = {}
for i = 1, #all, 2 do
  local its, heard = string.match(all[i + 1], '^(%d+) (%d+)')
  if all[i] ~= ARGV[1] then others[#others + 1] = {tonumber(heard) or 0, tonumber(its) or 0, all[i]} end
end
table.sort(others, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
for i = 1, #others + 1 - ARGV[4] do
  if not others[i] then break end
  local its = string.format('%.0f', others[i][2] + 1)
  redis.call('HDEL', KEYS[1], others[i][3])
  evict(others[i][3], its, '')
  answer[#answer + 1] = others[i][3]
  answer[#answer + 1] = its
end
return answer
"#,
    )
});

/// Gives a place back, if it is still the caller's.
pub(crate) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
-- KEYS 1 sessions:<user>   ARGV 1 device  2 fence
if string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^%d+') == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
"#,
    )
});

/// Says that a session is there, or claims its place again if it was forgotten. 0: it is over.
///
/// An evicted device is forgotten as well, but then there is no room for it.
pub(crate) static REFRESH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
-- KEYS 1 sessions:<user>
-- ARGV 1 device  2 holder  3 instance  4 most devices  5 the user's topic  6 seconds kept  7 fence  8 microseconds of silence
local of, number = string.match(ARGV[2], '%S+ (%d+) (%d+)')
local at, client, attempt = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) %d+ %S+ (%d+) (%d+) ')
local ahead = at and tonumber(at) - tonumber(ARGV[7]) or 0
if client == of and attempt ~= number then ahead = tonumber(attempt) - tonumber(number) end
if ahead > 0 then return 0 end
if not at and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
local now = redis.call('TIME')
local heard = string.format('%.0f', math.max(now[1] * 1000000 + now[2] - ARGV[8], 0))
redis.call('HSET', KEYS[1], ARGV[1], ARGV[7] .. ' ' .. heard .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[6])
if ahead < 0 then
  local name = ARGV[1] == '' and 'null' or cjson.encode(ARGV[1])
  local by = ',"attempt":{"client":' .. of .. ',"number":' .. number .. '}'
  redis.call('PUBLISH', ARGV[5], '0 0 EVICT - {"op":"EVICT","d":{"device":' .. name .. ',"fence":' .. ARGV[7] .. by .. '}}')
end
return 1
"#,
    )
});

/// Notes how far relays are; never back, and not in another log than the one they mean.
pub(crate) static MARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
-- KEYS 1 log   ARGV 1 epoch  2.. shard and Unix milliseconds, in turn
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return end
for i = 2, #ARGV, 2 do
  local field = 'relay:' .. ARGV[i]
  if tonumber(ARGV[i + 1]) > tonumber(redis.call('HGET', KEYS[1], field) or '0') then
    redis.call('HSET', KEYS[1], field, ARGV[i + 1])
  end
end
"#,
    )
});

/// All of them, to be loaded on every connection.
pub(super) fn all() -> [&'static Script; 7] {
    [&PUBLISH, &OPEN, &TRIM, &CLAIM, &RELEASE, &REFRESH, &MARK]
}
