-- Traffic for bench/disk.sh: /z/OBJECT/CLASS, where the popularity of an object is its number to the power -EXPONENT,
-- and its class, which says its size, is drawn once. Arguments: OBJECTS CLASSES EXPONENT SEED.

local started = 0
function setup(thread)
  thread:set("number", started)
  started = started + 1
end

function init(args)
  objects = tonumber(args[1])
  local classes, exponent, sum = tonumber(args[2]), tonumber(args[3]), 0
  tail = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n\r\n"
  -- The same for all threads and all runs.
  math.randomseed(1)
  total, class = {}, {}
  for object = 1, objects do
    sum = sum + object ^ -exponent
    total[object] = sum
    class[object] = math.random(classes)
  end
  math.randomseed(tonumber(args[4]) * 1000 + number)
end

function request()
  -- The first object whose sum of popularities reaches the draw.
  local draw, low, high = math.random() * total[objects], 1, objects
  while low < high do
    local middle = math.floor((low + high) / 2)
    if total[middle] < draw then low = middle + 1 else high = middle end
  end
  return "GET /z/" .. low .. "/" .. class[low] .. tail
end
