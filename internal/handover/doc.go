// Package handover moves open files, with what is known of each, from a process to the one
// that takes its place. Both stay alive: it may fail at any point, and either process may be
// killed or stopped at any point. Each file has one owner throughout, the process that may
// read and write it.
//
// The processes speak over a Unix stream socket. The one that serves, the predecessor, listens
// there. The other one, the successor, connects:
//
//	from         message    has                             then
//	successor    hello      the versions that it speaks
//	predecessor  welcome    the version, and listeners      both have the listeners
//	successor    ready                                      it wants everything now
//	predecessor  state      a part of what has no files     any number of these; the successor
//	                                                        answers each with ack
//	predecessor  offer      what has no files, how many     nobody uses these files from here on
//	                        files there are
//	successor    accept                                     it has room for all of them
//	predecessor  batch      files and a record of each      the successor answers each with ack
//	successor    received                                   it has all, and could use all
//	predecessor  commit                                     it won't use them, unless it reads abort or the end
//	successor    taken                                      the files are the successor's
//	predecessor  offer      …                               for what it couldn't move before; any number of times
//
// Either one may send abort, with its reason in words, in place of any other message. In place
// of welcome the predecessor may send it, too: it speaks no version that the successor speaks,
// for example.
//
// Who owns the files follows only from what a process has read. These are the states of both,
// from the offer on:
//
//	predecessor   reads abort, the end, or nothing in time    reads what is next
//	-----------   ----------------------------------------    -------------------
//	offered       sends abort, and owns them                  accept: batches
//	sending       sends abort, and owns them                  received: committed
//	committed     owns them; it waits without a limit         taken: gone
//	gone          is not the owner, whatever happens
//
//	successor     reads abort     reads the end    nothing in time   reads what is next
//	-----------   -----------     -------------    ---------------   ------------------
//	receiving     drops them      drops them       sends abort,      the last batch: complete,
//	                                               drops them        sends ack and received
//	complete      drops them      sends taken,     sends abort,      commit: sends taken, owns them
//	                              owns them        drops them
//	owner         is the owner, whatever happens
//
// Why that is enough:
//
//   - A predecessor that lives never ends the connection before it has read taken or sent
//     abort, and before it sends abort it waits until there is room for that. So a successor
//     that reads the end in the state complete knows that the predecessor is dead. It must take
//     the files then, or nobody would have them.
//   - A successor begins to use the files after it has sent taken, never before. So a
//     predecessor that reads the end in the state committed knows that nobody has used them.
//   - What a process has written before it was killed stays readable for the other one: on a
//     stream socket a reset is reported behind it.
//
// Descriptors travel by SCM_RIGHTS (unix(7)): at most 253 in one message, and each batch is
// acknowledged before the next one is sent, since the kernel limits those that are on their
// way. Only Linux is supported.
package handover
