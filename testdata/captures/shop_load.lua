-- The shop's visitors, for wrk: steady, gently waving, with a mix of pages, check-outs and payments.
--
-- A connection waits an exponentially distributed time between two requests, so that arrivals are
-- close to a Poisson process. The environment says how fast:
--   SHOP_RATE         requests per second on average
--   SHOP_CONNECTIONS  wrk's -c
--   SHOP_WAVE         seconds that one wave of +-20 % takes
--   SHOP_START        epoch second at which the first wave begins
--   SHOP_CONTROL      a file with a factor on the rate (1 = normal), read once a second

local rate = tonumber(os.getenv("SHOP_RATE"))
local connections = tonumber(os.getenv("SHOP_CONNECTIONS"))
local wave = tonumber(os.getenv("SHOP_WAVE"))
local start = tonumber(os.getenv("SHOP_START"))
local control = os.getenv("SHOP_CONTROL")

-- Share of the requests, and path. `%d` becomes a product's number. The last one is an old link that
-- leads nowhere any more: even a healthy shop answers a few requests with 404.
local visits = {
   {0.200, "/"},
   {0.200, "/product/%d"},
   {0.115, "/cart"},
   {0.060, "/static/shop.css"},
   {0.300, "/checkout"},
   {0.120, "/pay"},
   {0.005, "/summer-sale"},
}

local mean_delay_ms = 0
local read_at = 0

local function factor()
   local file = io.open(control)
   if not file then return 1 end
   local value = tonumber(file:read("*l"))
   file:close()
   return value or 1
end

local function refresh(now)
   local level = rate * (1 + 0.2 * math.sin(2 * math.pi * (now - start) / wave)) * factor()
   mean_delay_ms = 1000 * connections / level
   read_at = now
end

function init(args)
   math.randomseed(20)
   refresh(os.time())
end

function delay()
   local now = os.time()
   if now ~= read_at then refresh(now) end
   return math.floor(-math.log(1 - math.random()) * mean_delay_ms + 0.5)
end

function request()
   local dice = math.random()
   for _, visit in ipairs(visits) do
      dice = dice - visit[1]
      if dice < 0 then
         return wrk.format("GET", (visit[2]:gsub("%%d", tostring(math.random(500)))))
      end
   end
   return wrk.format("GET", "/")
end
