-- Load over many objects, for bench/scale.sh and bench/idle.sh: /PREFIX/1 … /PREFIX/COUNT, on one thread.
-- Arguments: PREFIX COUNT fill|ask SEED. `fill` asks for each object once, in order, and ends there;
-- `ask` draws objects at random until wrk's time is over.

function init(args)
  prefix, count, fill = args[1], tonumber(args[2]), args[3] == "fill"
  head = "GET /" .. prefix .. "/"
  tail = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n\r\n"
  object = 0
  math.randomseed(tonumber(args[4]))
end

function request()
  if not fill then return head .. math.random(count) .. tail end
  object = object + 1
  if object <= count then return head .. object .. tail end
  -- Some more are asked for than wanted, so that the last one is answered before all ends;
  -- stopping only this thread would leave wrk waiting for its time to be over.
  if object > count + 1000 then os.exit(0) end
  return head .. "1" .. tail
end
