-- The circuit breaker of a whole deployment, as one step.
--
-- KEYS[1]  {prefix}:breaker:{name}, hash, no expiry:
--            failures   failures in a row
--            opened     when it opened, ms of Redis's own clock; absent: closed
--            probe      until when the one probe may answer, ms; absent: nobody probes
--            period     which stay in a state this is; a verdict from an earlier one says nothing
-- ARGV     command, period of the ticket, 1 if the ticket is a probe, threshold,
--          cool-down ms, probe ms
--
-- admit            lets through while closed; half-open, lets one probe through; else refuses
-- success failure  the verdict of a ticket, or of a run (period -1: counts whatever the period)
-- release          a ticket without a verdict: its probe makes room
-- reset            closes by hand
-- look             nothing
--
-- Answers: admitted (0 no, 1 yes, 2 as the probe), wait ms, failures, state
-- (0 closed, 1 open, 2 half-open), period.

local key, command = KEYS[1], ARGV[1]
local ticket, probe = tonumber(ARGV[2]), ARGV[3] == '1'
local threshold, cool, patience = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stored = redis.call('HMGET', key, 'failures', 'opened', 'probe', 'period')
local failures, opened = tonumber(stored[1] or 0), tonumber(stored[2])
local probing, period = tonumber(stored[3]), tonumber(stored[4] or 0)
local admitted, wait, changed = 0, 0, false
local current = ticket == period or ticket == -1

local function close()
  opened, probing, failures, period, changed = nil, nil, 0, period + 1, true
end

if command == 'admit' then
  if not opened then
    admitted = 1
  elseif now < opened + cool then
    wait = opened + cool - now
  elseif probing and now < probing then
    wait = probing - now
  else
    admitted, period, probing, changed = 2, period + 1, now + patience, true
  end
elseif command == 'success' and current then
  if probe then close() elseif failures > 0 and not opened then failures, changed = 0, true end
elseif command == 'failure' and current then
  failures, changed = failures + 1, true
  if probe or (not opened and failures >= threshold) then
    opened, probing, period = now, nil, period + 1
  end
elseif command == 'release' and probe and current then
  probing, changed = nil, true
elseif command == 'reset' then
  close()
end

if changed then
  redis.call('DEL', key)
  redis.call('HSET', key, 'failures', failures, 'period', period)
  if opened then redis.call('HSET', key, 'opened', opened) end
  if probing then redis.call('HSET', key, 'probe', probing) end
end
local state = 0
if opened then state = now >= opened + cool and 2 or 1 end
return {admitted, wait, failures, state, period}
