-- Compare-and-append: the only way into an event log. One call commits many runs, each on its own
-- terms, and says for each run, in order, what became of it.
--
-- KEYS, two per run:
--   {prefix}:run:{<run id>}:events   stream. One entry per event, id `<attempt>-<seq>`, fields
--                                    `d` = the finished line and, on the terminal entry, `end` = 1.
--   {prefix}:run:{<run id>}:attempt  string, the fence: the newest attempt that began to write.
--   Both expire together: `live` after the first entry of an attempt, `retention` after the
--   terminal entry; nothing else touches their expiry.
-- ARGV:
--   1        the channel of the bells; it hears the ids of the runs that got new entries
--   per run: its id; then "<attempt> <first seq> <count> <terminal 0|1> <repair 0|1>
--            <live, ms> <retention, ms>"; then `count` lines. Terminal: the last line is the end.
--
-- Answers, one text per run:
--   OK           appended; of a batch that is partly there, the rest
--   DUP          all of it was there: an earlier try whose answer was lost
--   GAP <seq>    the log does not end where the writer believes: Redis lost its tail
--   FENCED <n>   a newer attempt, n, has begun
--   CLOSED       the terminal entry is there; only a repair by a later attempt may follow it
--   LOST         the log was there and is gone; it is never made anew under the same attempt
--
-- A run's entries are written before its fence: a first write that Redis refuses (out of memory,
-- read-only) then leaves no trace, and the error fails the whole call, which can be sent again.

local function decide(events, fence, attempt, first, count, repair)
  local newest = tonumber(redis.call('GET', fence) or '0')
  if attempt < newest then return 'FENCED ' .. newest end
  local top = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
  if not top then
    if attempt == newest or first > 1 then return 'LOST' end
    return 'OK', 0
  end
  local top_attempt, top_seq = string.match(top[1], '^(%d+)-(%d+)$')
  top_attempt, top_seq = tonumber(top_attempt), tonumber(top_seq)
  if top_attempt > attempt then return 'FENCED ' .. top_attempt end
  local there = 0
  if top_attempt == attempt then there = top_seq end
  if first + count - 1 <= there then return 'DUP' end
  if top[2][3] == 'end' and not (repair and there == 0 and first == 1) then return 'CLOSED' end
  if first > there + 1 or (attempt > newest and first > 1) then return 'GAP ' .. (there + 1) end
  return 'OK', there
end

local function append(events, attempt, first, count, terminal, there, at)
  -- Returns nothing, or what went wrong: an error, or GAP where newer entries were removed (Redis
  -- keeps a stream's last id, so the same ids cannot come again).
  for i = math.max(0, there - first + 1), count - 1 do
    local id, reply = attempt .. '-' .. (first + i), nil
    if terminal and i == count - 1 then
      reply = redis.pcall('XADD', events, id, 'd', ARGV[at + i], 'end', '1')
    else
      reply = redis.pcall('XADD', events, id, 'd', ARGV[at + i])
    end
    if type(reply) == 'table' and reply.err then
      if string.find(reply.err, 'equal or smaller', 1, true) then return 'GAP ' .. (there + 1) end
      return reply
    end
  end
end

local answers, rang, at = {}, {}, 2
for k = 1, #KEYS, 2 do
  local events, fence = KEYS[k], KEYS[k + 1]
  local attempt, first, count, terminal, repair, live, retention =
    string.match(ARGV[at + 1], '^(%d+) (%d+) (%d+) (%d) (%d) (%d+) (%d+)$')
  attempt, first, count = tonumber(attempt), tonumber(first), tonumber(count)
  local answer, there = decide(events, fence, attempt, first, count, repair == '1')
  if answer == 'OK' then
    local failed = append(events, attempt, first, count, terminal == '1', there, at + 2)
    if type(failed) == 'table' then return failed end
    if failed then
      answer = failed
    else
      local life = terminal == '1' and retention or live
      if first == 1 then
        redis.call('SET', fence, attempt, 'PX', life)
        redis.call('PEXPIRE', events, life)
      elseif terminal == '1' then
        redis.call('PEXPIRE', fence, life)
        redis.call('PEXPIRE', events, life)
      end
      rang[#rang + 1] = ARGV[at]
    end
  end
  answers[#answers + 1] = answer
  at = at + 2 + count
end
if #rang > 0 then redis.call('PUBLISH', ARGV[1], table.concat(rang)) end
return answers
