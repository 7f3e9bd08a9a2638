module seaway.dev/testing/echo

go 1.26.0
