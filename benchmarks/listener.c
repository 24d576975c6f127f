/* A listener on ports 7000.. in the namespaces of process PID: nobody accepts, so a handshake costs no switch.

   listener PID
   open PORTS     -> 1
   close          -> 1        what waits to be accepted is reset */
#include "measure.h"

int main(int argc, char **argv) {
    char line[64];
    int ports = 0;
    if (argc != 2)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    want_files(MOST_PORTS + 64);
    enter_namespace(argv[1]);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "open %d", &ports) == 1)
            open_listeners(ports);
        else
            close_listeners();
        puts("1");
    }
    return 0;
}
