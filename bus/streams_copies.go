package bus

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// newestMarks returns the IDs and the marks of the newest entries of the stream KEYS[1]: of
// ARGV[1] at most, and of the last ARGV[2] milliseconds.
const newestMarks = `
local now = redis.call('TIME')
local since = string.format('%.0f', math.max(0, now[1] * 1000 - ARGV[2]))
local marks = {}
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', since, 'COUNT', ARGV[1])) do
	for i = 1, #entry[2], 2 do
		if entry[2][i] == 'm' then
			marks[#marks + 1] = entry[1]
			marks[#marks + 1] = entry[2][i + 1]
		end
	end
end
return marks`

// recallNewest asks for the newest messages of a stream, so that a subscription that begins
// at its end recognizes their copies which come later: somebody who reads the history up to
// the place where the subscription begins has these messages already. A Publish leaves no
// copies for longer than the Timeout of its bus.
func (r *reader) recallNewest(ctx context.Context, pipe redis.Pipeliner, key string) *redis.Cmd {
	return pipe.Eval(ctx, newestMarks, []string{key}, recalled, 2*r.bus.timeout().Milliseconds())
}

// recall makes a place know the messages that recallNewest has found, but for those behind
// end, where the place begins.
func (pl *place) recall(found []string, end streamID) {
	for i := len(found) - 2; i >= 0; i -= 2 { // the oldest is the last
		id, err := parseStreamID(found[i])
		if err != nil || id.compare(end) > 0 {
			continue
		}
		if m, err := parseMark(found[i+1]); err == nil {
			pl.seen.first(m, id.ms)
		}
	}
}
