//go:build unix

package balancer_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

// backendProcess starts a backend that is a process of its own, so that what it costs isn't
// measured, and returns its URL.
func backendProcess(b *testing.B) (url string) {
	url, _ = startBackend(b)
	return url
}

// startBackend starts a backend that is a process of its own.
func startBackend(b testing.TB) (url string, _ *os.Process) {
	self, err := os.Executable()
	must(b, err)
	process := exec.Command(self)
	process.Env = append(os.Environ(), asBackend+"=1")
	in, err := process.StdinPipe()
	must(b, err)
	out, err := process.StdoutPipe()
	must(b, err)
	must(b, process.Start())
	b.Cleanup(func() {
		in.Close()
		process.Wait()
	})
	url, err = bufio.NewReader(out).ReadString('\n')
	must(b, err)
	return strings.TrimSpace(url), process.Process
}

// BenchmarkRoundTrip compares a Transport with net/http's: the CPU time of this
// process beside the time by the clock. The backend is a process of its own.
func BenchmarkRoundTrip(b *testing.B) {
	url := backendProcess(b)
	backend, err := balancer.NewBackend("a", url, 1)
	must(b, err)
	ours := &balancer.Transport{}
	defer ours.CloseIdleConnections()
	theirs := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256}
	defer theirs.CloseIdleConnections()
	ctx, cancel := context.WithCancel(balancer.WithBackend(b.Context(), backend)) // as a server's is
	defer cancel()
	for _, body := range []string{"", "hello"} {
		for _, tr := range []struct {
			name string
			http.RoundTripper
		}{{"limpet", ours}, {"net/http", theirs}} {
			b.Run(strings.TrimSuffix(tr.name+"/body="+body, "/body="), func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(32)
				before := cpu(b)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						var r io.Reader
						if body != "" {
							r = io.NopCloser(strings.NewReader(body))
						}
						req, _ := http.NewRequestWithContext(ctx, "POST", url, r)
						req.ContentLength = int64(len(body))
						res, err := tr.RoundTrip(req)
						if err != nil {
							b.Error(err)
							return
						}
						io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
				})
				b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// cpu returns the CPU time of this process in nanoseconds.
func cpu(b *testing.B) int64 {
	var use syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &use))
	return use.Utime.Nano() + use.Stime.Nano()
}
