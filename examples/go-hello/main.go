// A greeting from Go: an ordinary net/http server for GOOS=wasip1.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
)

func main() {
	listener, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from Go at %s\n", r.URL.Path)
	})
	log.Print("listening")
	log.Fatal(http.Serve(listener, nil))
}

// WASI preview 1 makes no sockets: the container is given one that listens for each containerPort.
func listen() (net.Listener, error) {
	first, err := strconv.Atoi(os.Getenv("LISTEN_FDS_START"))
	if err != nil {
		return nil, errors.New("no socket was given: name a containerPort")
	}
	// All goroutines share one thread: none may wait in the host.
	if err := syscall.SetNonblock(first, true); err != nil {
		return nil, fmt.Errorf("socket %d: %w", first, err)
	}
	return net.FileListener(os.NewFile(uintptr(first), "listener"))
}
