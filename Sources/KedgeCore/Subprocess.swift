// Child processes: passphrase commands, drill servers, and what the tests start.
//
// 1. Arguments are handed over one by one; no shell is involved unless the caller names one.
// 2. The child gets three descriptors and nothing else of ours: no lock, no repository file, no key.
// 3. Output is bounded: a child that writes more than the limit is killed and the run is an error.
// 4. `run` ends when the child ends, even if a grandchild still holds the child's output open.
import CSystem
import Glibc

/// A program to be started: its arguments, environment, working directory and input.
package struct Subprocess: Sendable {
    /// The program, searched in PATH if it holds no slash, and its arguments.
    package var arguments: [String]
    /// Variables on top of our own environment; nil removes one.
    package var environment: [String: String?] = [:]
    /// Nil: ours.
    package var workingDirectory: String?
    /// What the child reads from its standard input.
    package var input: [UInt8] = []
    /// How many bytes `run` takes of each output stream before it gives up.
    package var outputLimitBytes = 16 << 20
    /// How long `run` waits before it kills the child. Nil: as long as it takes.
    package var timeout: Duration?
    /// Makes `run` kill the child and throw `interrupted` once somebody asked to stop.
    package var interruption: Interruption?

    /// What the child has to do with our terminal and our end.
    package var bond = Bond.ordinary

    package init(_ arguments: [String]) { self.arguments = arguments }

    /// What a child shares with us.
    package enum Bond: Hashable, Sendable {
        /// The terminal's keys reach it as they reach us, and it may outlive us.
        case ordinary
        /// It leads a session of its own, and may outlive us.
        case ownSession
        /// It leads a session of its own, and gets this signal when the thread that started it ends, by SIGKILL too.
        case endsWithUs(signal: Int32)
    }

    /// How a child ended.
    package enum Status: Hashable, Sendable {
        case exited(Int32)
        case signalled(Int32)

        /// Whether it exited with status 0.
        package var isSuccess: Bool { self == .exited(0) }
    }

    /// What a finished child left.
    package struct Outcome: Sendable {
        package let status: Status
        package let output: [UInt8]
        package let errors: [UInt8]

        /// Standard output as text; invalid UTF-8 is repaired.
        package var outputText: String { String(decoding: output, as: UTF8.self) }
        /// Standard error as text; invalid UTF-8 is repaired.
        package var errorText: String { String(decoding: errors, as: UTF8.self) }
    }

    /// Where a started child's output goes.
    package enum Destination: Hashable, Sendable {
        case discarded
        /// Appended to the file at this path, which is created with mode 0600.
        case file(String)
        case inherited
    }

    /// Runs the program to its end and collects its output.
    ///
    /// A status other than 0 is an outcome, not an error. Throws `not-found` or `permission` when the program cannot be
    /// started, `timeout`, and `input-output` when it writes more than the limit; it has been killed then.
    package func run() throws(KedgeError) -> Outcome {
        var output = try OutputPipe(program: name)
        var errors = try OutputPipe(program: name)
        var child = try spawn(output: output.writeEnd, errors: errors.writeEnd)
        output.closeWriteEnd()
        errors.closeWriteEnd()
        var collector = Collector(program: name, limitBytes: outputLimitBytes, interruption: interruption)
        let deadline = timeout.map(Deadline.init)
        try collector.collect(output, errors, until: child, deadline: deadline)
        guard let status = try child.wait() else {
            throw KedgeError(.defect, "could not learn how program \"\(name)\" ended")
        }
        return Outcome(status: status, output: collector.output, errors: collector.errors)
    }

    /// Starts the program and returns at once. Throws as `run`.
    package func start(output: Destination, errors: Destination) throws(KedgeError) -> RunningProcess {
        let outputFile = try open(output, inherited: STDOUT_FILENO)
        let errorFile = try open(errors, inherited: STDERR_FILENO)
        return try spawn(output: outputFile.number, errors: errorFile.number)
    }

    /// The program's name for messages: never its arguments, which may hold what must not be logged.
    private var name: String { arguments.first ?? "" }

    private func spawn(output: Int32, errors: Int32) throws(KedgeError) -> RunningProcess {
        guard !arguments.isEmpty, !arguments.contains(where: { $0.utf8.contains(0) }) else {
            throw KedgeError(.defect, "cannot start a program from an empty argument list or with a zero byte in it")
        }
        let inputFile = input.withUnsafeBytes { csystem_memory_file($0.baseAddress, $0.count) }
        guard inputFile >= 0 else { throw systemError("prepare the input of program", RawPath(name), errno: errno) }
        defer { close(inputFile) }
        var process: pid_t = 0
        let failure = withCStrings(arguments) { arguments in
            withCStrings(mergedEnvironment()) { environment in
                let deathSignal: Int32
                switch bond {
                case .ordinary:
                    return csystem_spawn(
                        arguments, environment, workingDirectory, inputFile, output, errors, &process)
                case .ownSession: deathSignal = 0
                case .endsWithUs(let signal): deathSignal = signal
                }
                return csystem_spawn_tied(
                    arguments, environment, workingDirectory, inputFile, output, errors, deathSignal, &process)
            }
        }
        guard failure == 0 else { throw systemError("start program", RawPath(name), errno: failure) }
        return try RunningProcess(id: process, name: name)
    }

    private func mergedEnvironment() -> [String] {
        var lines: [String] = []
        guard var next = csystem_environment() else { return lines }
        while let line = next.pointee {
            let text = String(cString: line)
            let variable = text.prefix { $0 != "=" }
            if environment[String(variable)] == nil { lines.append(text) }
            next += 1
        }
        for (variable, value) in environment.sorted(by: { $0.key < $1.key }) {
            if let value { lines.append("\(variable)=\(value)") }
        }
        return lines
    }

    private func open(_ destination: Destination, inherited: Int32) throws(KedgeError) -> OwnedDescriptor {
        let path: String
        switch destination {
        case .inherited: return OwnedDescriptor(number: inherited, isOurs: false)
        case .discarded: path = "/dev/null"
        case .file(let name): path = name
        }
        let number = Glibc.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard number >= 0 else { throw systemError("open output file", RawPath(path), errno: errno) }
        return OwnedDescriptor(number: number, isOurs: true)
    }
}

/// A child that has been started and is ours to end. Killed and reaped when it goes out of scope.
package struct RunningProcess: ~Copyable {
    /// The process id. It stays reserved until the child has been waited for.
    package let id: Int32
    private let name: String
    /// Readable when the child has ended.
    fileprivate let descriptor: Int32
    private var status: Subprocess.Status?
    private var isReleased = false

    fileprivate init(id: pid_t, name: String) throws(KedgeError) {
        let descriptor = csystem_process_descriptor(id)
        if descriptor < 0 {
            let error = systemError("watch program", RawPath(name), errno: errno)
            Glibc.kill(id, SIGKILL)
            waitpid(id, nil, 0)
            throw error
        }
        self.id = id
        self.name = name
        self.descriptor = descriptor
    }

    /// Sends `signal`, unless the child has been waited for already.
    package func kill(_ signal: Int32) {
        if status == nil { Glibc.kill(id, signal) }
    }

    /// Waits until the child ends, or until `timeout` has passed: then nil.
    package mutating func wait(timeout: Duration? = nil) throws(KedgeError) -> Subprocess.Status? {
        if let status { return status }
        let deadline = timeout.map(Deadline.init)
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while true {
            let ready = poll(&entry, 1, pollMilliseconds(until: deadline))
            if ready > 0 { break }
            if ready < 0 && errno != EINTR { throw systemError("wait for program", RawPath(name), errno: errno) }
            if let deadline, deadline.hasPassed { return nil }
        }
        var word: Int32 = 0
        while waitpid(id, &word, 0) < 0 {
            if errno != EINTR { throw systemError("wait for program", RawPath(name), errno: errno) }
        }
        // The macros WIFEXITED and WTERMSIG of <sys/wait.h>; a child that is merely stopped is not reported.
        let ended: Subprocess.Status = word & 0x7F == 0 ? .exited(word >> 8 & 0xFF) : .signalled(word & 0x7F)
        status = ended
        return ended
    }

    /// Lets the child go on when this value goes away.
    package mutating func release() { isReleased = true }

    deinit {
        if status == nil && !isReleased {
            Glibc.kill(id, SIGKILL)
            while waitpid(id, nil, 0) < 0 && errno == EINTR {}
        }
        close(descriptor)
    }
}

/// A pipe that a child writes to.
private struct OutputPipe: ~Copyable {
    let readEnd: Int32
    /// -1 once it is closed.
    private(set) var writeEnd: Int32

    init(program: String) throws(KedgeError) {
        var ends: (Int32, Int32) = (-1, -1)
        guard csystem_output_pipe(&ends.0, &ends.1) == 0 else {
            throw systemError("make a pipe for program", RawPath(program), errno: errno)
        }
        readEnd = ends.0
        writeEnd = ends.1
    }

    mutating func closeWriteEnd() {
        if writeEnd >= 0 { close(writeEnd) }
        writeEnd = -1
    }

    deinit {
        if writeEnd >= 0 { close(writeEnd) }
        close(readEnd)
    }
}

/// Reads both streams of a child until it has ended.
private struct Collector {
    let program: String
    let limitBytes: Int
    let interruption: Interruption?
    private(set) var output: [UInt8] = []
    private(set) var errors: [UInt8] = []

    init(program: String, limitBytes: Int, interruption: Interruption?) {
        self.program = program
        self.limitBytes = limitBytes
        self.interruption = interruption
    }

    mutating func collect(
        _ outputPipe: borrowing OutputPipe, _ errorPipe: borrowing OutputPipe, until child: borrowing RunningProcess,
        deadline: Deadline?
    ) throws(KedgeError) {
        // A negative descriptor is ignored by poll: that is how a finished stream is left out.
        var entries = [outputPipe.readEnd, errorPipe.readEnd, child.descriptor]
            .map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        while true {
            // A signal may arrive just before poll begins to wait, so a request to stop is looked for in slices.
            let milliseconds = pollMilliseconds(until: deadline)
            let slice = interruption == nil ? milliseconds : milliseconds < 0 ? 200 : min(milliseconds, 200)
            let ready = poll(&entries, nfds_t(entries.count), slice)
            if ready < 0 && errno != EINTR { throw systemError("read from program", RawPath(program), errno: errno) }
            let hasEnded = ready > 0 && entries[2].revents != 0
            if entries[0].fd >= 0, try drain(outputPipe.readEnd, into: &output) { entries[0].fd = -1 }
            if entries[1].fd >= 0, try drain(errorPipe.readEnd, into: &errors) { entries[1].fd = -1 }
            // What the child wrote before it ended lay in the pipes by then and has just been read.
            if hasEnded { return }
            try interruption?.checkpoint()
            if let deadline, deadline.hasPassed {
                throw KedgeError(
                    .timeout, "could not wait for program \"\(program)\" any longer",
                    detail: "It was still running when its time was over, and has been killed.",
                    hint: "Run it by hand as the same user to see what it waits for.")
            }
        }
    }

    /// Reads what is there. True at the end of the stream.
    private func drain(_ descriptor: Int32, into bytes: inout [UInt8]) throws(KedgeError) -> Bool {
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
            if count == 0 { return true }
            if count < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN { return false }
                throw systemError("read from program", RawPath(program), errno: errno)
            }
            bytes.append(contentsOf: buffer[..<count])
            guard bytes.count <= limitBytes else {
                throw KedgeError(
                    .inputOutput, "could not take the output of program \"\(program)\"",
                    detail: "It wrote more than \(limitBytes) bytes, and has been killed.",
                    hint: "Run it by hand as the same user to see what it prints.")
            }
        }
    }
}

/// A descriptor that is closed at the end of its scope, unless it belongs to someone else.
private struct OwnedDescriptor: ~Copyable {
    let number: Int32
    let isOurs: Bool

    deinit {
        if isOurs { close(number) }
    }
}

/// When a program's time is over. Not `ContinuousClock`'s: that brings the runtime of tasks and libdispatch into every
/// start of ours (docs/decisions/0001).
private struct Deadline {
    private let nanoseconds: UInt64

    init(_ timeout: Duration) {
        let (seconds, attoseconds) = max(timeout, .zero).components
        // A century is long enough, and can't overflow.
        let wait = UInt64(min(seconds, 3_000_000_000)) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
        nanoseconds = SystemTimeSource().monotonicNanoseconds() + wait
    }

    var hasPassed: Bool { SystemTimeSource().monotonicNanoseconds() >= nanoseconds }

    /// Until then, rounded up, so that no loop spins; a day at most.
    var milliseconds: Int32 {
        let now = SystemTimeSource().monotonicNanoseconds()
        guard now < nanoseconds else { return 0 }
        return Int32(min((nanoseconds - now) / 1_000_000, 86_400_000) + 1)
    }
}

/// The argument of poll(2) for a deadline; -1 for none.
private func pollMilliseconds(until deadline: Deadline?) -> Int32 { deadline?.milliseconds ?? -1 }

/// Calls `body` with a NULL-terminated array of C strings that lives as long as the call.
private func withCStrings<Result>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    var pointers = strings.map { strdup($0) }
    pointers.append(nil)
    defer { for pointer in pointers { free(pointer) } }
    return body(pointers)
}
