// An HTTP backend for tests and the demo. It says who answered and what was asked, as JSON.
//
//	/healthz      200 while new work is welcome, 503 once the server was told to stop
//	/status/N     answers with status N
//	/delay/MS     waits MS milliseconds first
//	anything else 200
//
// Told to stop (SIGTERM), it goes on answering for the time of -drain, so that whoever routes to it can notice, and then finishes
// what it has begun.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	longestDelay  = time.Minute
	longestFinish = 30 * time.Second
)

// answer is the body of every reply but that of /healthz.
type answer struct {
	Name    string      `json:"name"`    // who answers: -name, else the host name, which in a pod is the pod's
	Address string      `json:"address"` // where the request arrived
	Client  string      `json:"client"`  // who sent it, as the socket tells
	Method  string      `json:"method"`
	Target  string      `json:"target"` // as it stood in the request line
	Proto   string      `json:"proto"`
	Host    string      `json:"host"`
	Headers http.Header `json:"headers"`
	Body    int64       `json:"body"` // how many bytes were sent along
}

type backend struct {
	name     string
	draining atomic.Bool
}

func (b *backend) reply(w http.ResponseWriter, r *http.Request, status int) {
	length, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return // the client is gone
	}
	address, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer{
		b.name, address.String(), r.RemoteAddr, r.Method, r.RequestURI, r.Proto, r.Host, r.Header, length,
	})
}

func (b *backend) health(w http.ResponseWriter) {
	if b.draining.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (b *backend) replyLater(w http.ResponseWriter, r *http.Request, wait time.Duration) {
	select {
	case <-time.After(wait):
		b.reply(w, r, http.StatusOK)
	case <-r.Context().Done():
	}
}

// ServeHTTP looks at the path as it was sent. ServeMux would clean it and redirect, and a test must see what a proxy made of it.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	number, err := strconv.Atoi(rest)
	switch {
	case r.URL.Path == "/healthz":
		b.health(w)
	case first == "status" && err == nil && number >= 200 && number <= 599:
		b.reply(w, r, number)
	case first == "delay" && err == nil && number >= 0:
		b.replyLater(w, r, min(time.Duration(number)*time.Millisecond, longestDelay))
	default:
		b.reply(w, r, http.StatusOK)
	}
}

func main() {
	host, _ := os.Hostname()
	listen := flag.String("listen", ":8080", "address and port")
	name := flag.String("name", host, "who answers")
	drain := flag.Duration("drain", 0, "how long to go on answering after SIGTERM")
	flag.Parse()

	told, forget := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer forget()
	b := &backend{name: *name}
	server := &http.Server{Addr: *listen, Handler: b, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()

	select {
	case err := <-ended:
		log.Fatal(err)
	case <-told.Done():
	}
	b.draining.Store(true)
	time.Sleep(*drain)
	finish, cancel := context.WithTimeout(context.Background(), longestFinish)
	defer cancel()
	if err := server.Shutdown(finish); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
