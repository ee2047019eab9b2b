# For the scripts beside this one: two network namespaces with a pair of devices between them, 192.0.2.1 and 192.0.2.2.
veth_pair() { # here, there
    local side
    ip netns add "$1"
    ip netns add "$2"
    ip -n "$1" link add veth0 type veth peer name veth0 netns "$2"
    for side in "$1:1" "$2:2"; do
        ip -n "${side%:*}" link set lo up
        ip -n "${side%:*}" address add "192.0.2.${side#*:}/24" dev veth0
        ip -n "${side%:*}" link set veth0 up
    done
}
