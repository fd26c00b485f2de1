package bus

import (
	"context"
	"fmt"
	"strconv"
	"strings"

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

// recallNewest makes a subscription that begins at the end of streams know the newest
// messages there, so that their copies are recognized which come later: somebody who reads
// the history up to the place where the subscription begins has these messages already.
// A Publish leaves no copies for longer than the Timeout of its bus.
func (s *streamsSubscription) recallNewest(ctx context.Context, streams []*stream) error {
	pipe := s.bus.Client.Pipeline()
	answers := map[*place]*redis.Cmd{}
	s.reader.mu.Lock()
	for _, st := range streams {
		if pl := st.subs[s]; pl != nil && !pl.known {
			answers[pl] = pipe.Eval(ctx, newestMarks, []string{st.key}, recalled, 2*s.bus.timeout().Milliseconds())
		}
	}
	s.reader.mu.Unlock()
	if len(answers) == 0 {
		return nil
	}
	pipe.Exec(ctx) // its error is the first one of the commands, which are looked at
	s.reader.mu.Lock()
	defer s.reader.mu.Unlock()
	for pl, answer := range answers {
		list, err := answer.StringSlice()
		if err != nil {
			return fmt.Errorf("bus: Streams: subscribe to %q: %w", pl.topic, err)
		}
		for i := len(list) - 2; i >= 0; i -= 2 { // the oldest is the last
			ms, _, _ := strings.Cut(list[i], "-")
			at, _ := strconv.ParseUint(ms, 10, 64)
			if m, err := parseMark(list[i+1]); err == nil {
				pl.seen.first(m, at)
			}
		}
	}
	return nil
}
