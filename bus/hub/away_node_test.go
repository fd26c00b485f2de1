package hub_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// awayNode names the variable that makes TestMain a node of TestAway. It holds the name of
// the node and the URL of Redis.
const awayNode = "LIMPET_HUB_AWAY_NODE"

// awayRooms are the rooms of all clients of TestAway.
var awayRooms = []string{"a", "b", "c"}

func newAwayHub(client *redis.Client, timeout time.Duration) (*hub.Hub, error) {
	return hub.New(&bus.Streams{Client: client, MaxLen: 100_000, Timeout: timeout},
		&hub.Options{Recover: 100_000, Logger: slog.New(slog.DiscardHandler)})
}

// nodeSays is what a node prints: its address, the number of a message that the bus has taken,
// or that its publishers have ended.
type nodeSays struct {
	Address string `json:",omitempty"`
	Series  string `json:",omitempty"`
	Number  int    `json:",omitempty"`
	Done    bool   `json:",omitempty"`
}

// runAwayNode is a node of TestAway. The first line of its standard input makes it publish ten
// messages a second to each room, and the second one ends that.
func runAwayNode(arg string) {
	name, url, _ := strings.Cut(arg, " ")
	client, err := bus.NewRedisClient(url)
	if err != nil {
		log.Fatal(err)
	}
	h, err := newAwayHub(client, time.Second) // so that Send fails at times
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	handler := h.Handler(&hub.HandlerOptions{
		Member: func(*http.Request) (hub.MemberOptions, error) { return hub.MemberOptions{Rooms: awayRooms}, nil },
		Ping:   250 * time.Millisecond,
	})
	go func() { log.Fatal(h.Run(context.Background())) }() // until the process ends
	go func() { log.Fatal(http.Serve(l, handler)) }()      // likewise

	var mu sync.Mutex
	say := func(what nodeSays) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(os.Stdout).Encode(what)
	}
	say(nodeSays{Address: l.Addr().String()})
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	halt := make(chan struct{})
	var publishing sync.WaitGroup
	for _, room := range awayRooms {
		publishing.Go(func() {
			publishSeries(h, name+"/"+room, 100*time.Millisecond, []string{room}, halt, func(series string, number int) {
				say(nodeSays{Series: series, Number: number})
			})
		})
	}
	in.Scan()
	close(halt)
	publishing.Wait()
	say(nodeSays{Done: true})
	in.Scan() // waits for the end of the test
}

// publishSeries sends a series until halt is closed. What couldn't be sent in its time, because
// the bus was away, is sent as soon as it can be. taken is called for each message that the bus
// has taken.
func publishSeries(h *hub.Hub, series string, every time.Duration, rooms []string, halt <-chan struct{}, taken func(string, int)) {
	began := time.Now()
	for number := 1; ; number++ {
		text := hub.Text(fmt.Appendf(nil, "%s %d", series, number))
		if h.Send(context.Background(), hub.Who{Rooms: rooms}, text) == nil {
			taken(series, number)
		}
		select {
		case <-time.After(time.Until(began.Add(time.Duration(number) * every))):
		case <-halt:
			return
		}
	}
}
