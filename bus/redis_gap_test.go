package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
)

// When many topics are subscribed to again, messages of the first ones come while the
// last ones aren't yet. Each topic has its Gap before them.
func TestRedisGapStandsBeforeMessages(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	network := newProxy(t, server.Addr)
	b := &bus.Redis{Client: network.client(t), Queue: 1 << 20, Timeout: patience}
	topics := make([]string, 5000)
	for i := range topics {
		topics[i] = fmt.Sprint("topic ", i)
	}
	sub, err := b.Subscribe(t.Context(), append(topics, "end")...)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()

	client := server.Client(t)
	var publishing sync.WaitGroup
	defer publishing.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	publishing.Go(func() { // the numbers from 1 on each of some topics
		for n := 1; ctx.Err() == nil; n++ {
			pipe := client.Pipeline()
			for i := 0; i < len(topics); i += 20 {
				pipe.Publish(t.Context(), topics[i], n)
			}
			if _, err := pipe.Exec(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	await(t, "messages", func() bool { return b.Stats().Delivered > 2000 })
	network.cut()
	await(t, "the break", func() bool { return b.Stats().Away > 0 })
	await(t, "all topics", func() bool { return b.Stats().Away == 0 })
	stop()
	publishing.Wait()
	if err := b.Publish(t.Context(), "end", nil); err != nil {
		t.Fatal(err)
	}

	last, late, gaps := make(map[string]int), 0, 0
	for {
		m, err := sub.Next(t.Context())
		var gap *bus.Gap
		switch {
		case errors.As(err, &gap):
			gaps++
			for _, topic := range gap.Topics {
				delete(last, topic)
			}
			continue
		case err != nil:
			t.Fatal(err)
		}
		if m.Topic == "end" {
			break
		}
		n, _ := strconv.Atoi(string(m.Data))
		if before, ok := last[m.Topic]; ok && n != before+1 {
			late++
		}
		last[m.Topic] = n
	}
	t.Logf("%d gaps", gaps)
	if late > 0 || gaps == 0 {
		t.Errorf("%d messages came before the Gap of their topics; %d gaps", late, gaps)
	}
}

// Redis would cut off whoever is subscribed to anything in the same process.
func TestRedisHugeMessage(t *testing.T) {
	t.Parallel()
	b := &bus.Redis{Client: redistest.Start(t).Client(t), Timeout: patience}
	sub := listen(t, b, "a")
	huge := make([]byte, 8<<20+1)
	if err := b.Publish(t.Context(), "a", huge); err == nil {
		t.Error("a message of more than 8 MiB is published")
	}
	for n := 1; ; n++ {
		for _, data := range [][]byte{huge[1:], strconv.AppendInt(nil, int64(n), 10)} {
			if err := b.Publish(t.Context(), "a", data); err != nil {
				t.Fatal(err)
			}
		}
		sub.until(t, "the message behind the huge one, or a gap", func() bool {
			return len(sub.errs) == n || len(sub.numbers) > 0 && sub.numbers[len(sub.numbers)-1] == int64(n)
		})
		if sub.gaps() < n {
			return
		}
		// On a busy machine the message may take so long that the connection is taken for
		// dead. If Redis had cut it off, there would be another reason.
		if gap := sub.awaitGap(t, n); !strings.Contains(gap.Error(), "hasn't answered for 1s") {
			t.Fatal(gap)
		}
		if n == 10 {
			t.Fatal("this machine is too slow: 8 MiB took more than a second each time")
		}
	}
}
