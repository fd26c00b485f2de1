//go:build linux

// Bench measures what Limpet costs beside other gateways, on one machine:
//
//	go run ./internal/bench -svg internal/bench/results/bench.svg | tee internal/bench/results/README.md
//
// is how its results in this repository are made. That takes ten minutes, and a
// machine that does nothing else.
//
// It starts backends, and then, one after the other in rounds that take turns,
// examples/gateway and each of nginx, HAProxy, Caddy and a plain
// httputil.ReverseProxy that is installed, each anew for each case: with one
// worker (GOMAXPROCS=1) on a processor of its own, with stickiness and health checks
// as far as it has them: peer.go holds the configurations. Limpet has its default
// affinity, and where that matters another column, "Limpet cookie", has -affinity cookie.
// This process generates the load; backends and load share the other processors.
// It prints tables in Markdown: processor time of the gateway's processes, user
// and system, for each operation; throughput; p50 and p99; proportional set size;
// and for Limpet how its costs grow with backends and tunnels, and what a pick and
// a sweep of health checks cost.
// Figures are medians of the rounds; ratios are to nginx, and medians of the
// rounds' own. What takes long and hardly varies, memory and scaling, is measured
// in half of the rounds.
//
// Each answer is checked: status, length, every byte, and with a cookie the backend
// that it came from. A case with errors says so, and the exit code is then 1.
//
// All is on 127.0.0.1, bounded in time, and whatever was started ends with it, on
// an interrupt, too. It needs Linux, and to hold 9,500 tunnels a limit of 20,000
// open files.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/meter"
)

// role is the environment variable that makes this program another process of a
// benchmark.
const role = "LIMPET_BENCH_ROLE"

func main() {
	if err := act(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// act does what this process is for.
func act() error {
	args := strings.Fields(os.Getenv(role))
	switch {
	case len(args) == 2 && args[0] == "backends":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return backends(n)
	case len(args) == 3 && args[0] == "reverseproxy":
		return reverseProxy(args[1], args[2], "")
	case len(args) == 4 && args[0] == "reverseproxy":
		return reverseProxy(args[1], args[2], args[3])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Stdout, os.Args[1:])
}

// A bench is what all trials share.
type bench struct {
	sizes
	dir  string       // for files, removed at the end
	core meter.CPUSet // the gateway's; nil: any
}

// run does what the flags say, and prints the tables to w.
func run(ctx context.Context, w io.Writer, args []string) error {
	b := &bench{}
	most := (descriptors() - 1000) / 2 // a tunnel needs two in the gateway
	fs := flag.NewFlagSet("bench", flag.ExitOnError)
	rounds := fs.Int("rounds", 3, "how `often` each case is measured at each gateway; half as often if it is about memory")
	only := fs.String("cases", "", "`names` of cases, a comma-separated list; none: all")
	who := fs.String("peers", "", "`names` of gateways, a comma-separated list; none: all that are installed")
	var variants []string
	fs.Func("variant", "measure Limpet with these `flags` of examples/gateway, too, such as \"-access-log json\"; repeatable", func(flags string) error {
		variants = append(variants, flags)
		return nil
	})
	var builds []string
	fs.Func("beside", "measure this `file`, another build of examples/gateway, too; repeatable", func(file string) error {
		builds = append(builds, file)
		return nil
	})
	scales := fs.Bool("scaling", true, "measure how Limpet scales with backends and tunnels, too")
	fs.DurationVar(&b.Time, "time", time.Second, "how long a case is measured, after half of it to warm up")
	fs.DurationVar(&b.Settle, "settle", time.Second, "how long to wait before memory is read")
	fs.IntVar(&b.Clients, "clients", 32, "`connections` that are busy at the same time")
	fs.IntVar(&b.Quiet, "paced-tunnels", 100, "`tunnels` of the paced case")
	fs.IntVar(&b.Rate, "rate", 4000, "`messages` a second of the paced case")
	fs.IntVar(&b.Idle, "idle", min(9500, most), "idle `tunnels`; the limit of open files allows for the default")
	fs.IntVar(&b.Members, "members", min(5000, most), "`tunnels` of the broadcast")
	fs.IntVar(&b.Messages, "messages", 20, "`messages` of the broadcast")
	fs.IntVar(&b.Polls, "polls", min(4000, most), "`polls` that wait at the same time")
	fs.DurationVar(&b.Hold, "hold", time.Second, "how long a poll waits, in the mean")
	jsonFile := fs.String("json", "", "write all results to this `file`")
	svgFile := fs.String("svg", "", "draw a chart of processor time and memory into this `file`")
	_ = fs.Parse(args)
	if fs.NArg() > 0 || min(*rounds, b.Clients, b.Quiet, b.Rate, b.Idle, b.Members, b.Messages, b.Polls, int(b.Hold/tick)) < 1 {
		return errors.New("wrong arguments: see -h")
	}
	for _, name := range []string{*jsonFile, *svgFile} {
		if name != "" { // a wrong one shows now and not at the end
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			f.Close()
		}
	}
	cases, err := chosen(scenes, *only, func(c *scene) string { return c.name })
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "limpet-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	peers, err := allPeers(ctx, b.dir)
	if err != nil {
		return err
	}
	if peers, err = chosen(peers, *who, func(p *peer) string { return p.name }); err != nil {
		return err
	}
	if limpet := named(peers, "Limpet"); limpet != nil {
		for _, flags := range variants {
			peers = append(peers, variant(limpet, flags))
		}
		for _, file := range builds {
			peers = append(peers, &peer{name: "Limpet " + file, path: file, command: limpet.command})
		}
	}
	report := newReport(b, *rounds, cases, peers)
	peers = slices.DeleteFunc(peers, func(p *peer) bool { return p.path == "" })
	gateway, base := named(peers, "Limpet"), named(peers, baseline)
	if *scales && gateway == nil {
		return errors.New("-scaling is about Limpet, which -peers left out")
	}
	if err := b.place(); err != nil {
		return err
	}
	nodes, addrs, err := b.backends(2)
	if err != nil {
		return err
	}
	defer nodes.Stop()
	for round := range *rounds {
		for _, c := range cases {
			if c.rests != nil && round >= half(*rounds) {
				continue
			}
			for i := range peers {
				p := peers[(round+i)%len(peers)] // not always the same one first
				if p.only != nil && !p.only(c) {
					continue
				}
				fmt.Fprintf(os.Stderr, "\rround %d of %d: %s, %s\x1b[K", round+1, *rounds, c.name, p.name)
				r, err := b.try(ctx, p, c, addrs)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err != nil { // the others can be measured nevertheless
					r.Errors++
					r.Error = err.Error()
				}
				r.Round = round + 1
				report.Runs = append(report.Runs, r)
			}
		}
	}
	if *scales {
		fmt.Fprint(os.Stderr, "\rscaling\x1b[K")
		report.Scaling, err = scale(half(*rounds), func() (*scaling, error) {
			return b.scaling(ctx, gateway, base, addrs, []int{10, 100, 1000}, []int{100, 1000, min(9000, most)})
		})
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	return errors.Join(err, report.write(w, *jsonFile, *svgFile)) // what was measured isn't lost
}

// half returns in how many of the rounds is measured what takes long.
func half(rounds int) int { return max(1, rounds/2) }

// named returns the peer of this name, nil if there is none.
func named(peers []*peer, name string) *peer {
	for _, p := range peers {
		if p.name == name {
			return p
		}
	}
	return nil
}

// chosen returns those of all that a list names.
func chosen[T any](all []T, list string, name func(T) string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	var some []T
	for want := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(v T) bool { return strings.EqualFold(name(v), strings.TrimSpace(want)) })
		if i < 0 {
			var names []string
			for _, v := range all {
				names = append(names, name(v))
			}
			return nil, fmt.Errorf("no %q, there are: %s", want, strings.Join(names, ", "))
		}
		some = append(some, all[i])
	}
	return some, nil
}

// place leaves one processor to the gateway.
func (b *bench) place() error {
	all, err := meter.Allowed()
	if err != nil {
		return err
	}
	core, others := all.Split()
	if core == nil {
		fmt.Fprintln(os.Stderr, "one processor only: gateway, load and backends share it")
		return nil
	}
	b.core = core
	return others.PinAll()
}

// backends starts a process of n backends and returns their addresses.
func (b *bench) backends(n int) (*meter.Process, []string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"=backends "+strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	if _, err = cmd.StdinPipe(); err != nil { // its end is the end of the backends
		return nil, nil, err
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	p, err := meter.Start(cmd, nil)
	if err != nil {
		return nil, nil, err
	}
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		p.Stop()
		return nil, nil, fmt.Errorf("backends: %w", err)
	}
	addrs := strings.Fields(line)
	for i, port := range addrs {
		addrs[i] = "127.0.0.1:" + port
	}
	return p, addrs, nil
}
