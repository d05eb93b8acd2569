-- Load over many objects without repetition, for bench/disk.sh: /PREFIX/1 … /PREFIX/COUNT in an order that SEED shuffles.
-- Arguments: PREFIX COUNT SEED THREADS. Each of wrk's threads has a part of its own; after its last object a thread
-- begins again, so that more than COUNT requests say that some were repeated.

local started = 0
function setup(thread)
  thread:set("number", started)
  started = started + 1
end

function init(args)
  local count, threads = tonumber(args[2]), tonumber(args[4])
  head = "GET /" .. args[1] .. "/"
  tail = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n\r\n"
  math.randomseed(tonumber(args[3]))
  local all = {}
  for object = 1, count do all[object] = object end
  for place = count, 2, -1 do
    local other = math.random(place)
    all[place], all[other] = all[other], all[place]
  end
  own = {}
  for place = number + 1, count, threads do own[#own + 1] = all[place] end
  position = 0
end

function request()
  position = position % #own + 1
  return head .. own[position] .. tail
end
