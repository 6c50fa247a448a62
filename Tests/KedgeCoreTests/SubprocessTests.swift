// Child processes: what they inherit, how they end, and that neither output nor waiting is unbounded.
import Glibc
import KedgeCore
import Testing

@Suite struct SubprocessTests {
    @Test("arguments reach the program one by one, whatever is in them")
    func arguments() throws {
        let outcome = try Subprocess(["printf", "%s|", "a b", "", "$HOME", "'\"\\"]).run()
        #expect(outcome.status == .exited(0))
        #expect(outcome.outputText == "a b||$HOME|'\"\\|")
    }

    @Test("input, both outputs, working directory and environment are the child's own")
    func streams() throws {
        var shell = Subprocess(["sh", "-c", "cat; pwd; echo \"$KEDGE_A-${PATH+set}\"; echo error >&2; exit 3"])
        shell.input = Array("line\n".utf8)
        shell.workingDirectory = "/usr"
        shell.environment = ["KEDGE_A": "1"]
        let outcome = try shell.run()
        #expect(outcome.status == .exited(3))
        #expect(outcome.outputText == "line\n/usr\n1-set\n")
        #expect(outcome.errorText == "error\n")
        var bare = Subprocess(["/bin/sh", "-c", "echo ${HOME-none}"])
        bare.environment = ["HOME": nil as String?]
        #expect(try bare.run().outputText == "none\n")
    }

    @Test("a child ended by a signal says which")
    func signal() throws {
        #expect(try Subprocess(["sh", "-c", "kill -TERM $$"]).run().status == .signalled(SIGTERM))
    }

    @Test("a child inherits no descriptor of ours beyond the three")
    func descriptors() throws {
        let extra = open("/dev/null", O_RDONLY)
        defer { close(extra) }
        let outcome = try Subprocess([
            "sh", "-c", "for n in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo $n; done; :",
        ])
        .run()
        #expect(outcome.outputText == "")
    }

    @Test("a program that is not there is an error that names it and not its arguments")
    func missing() {
        let error = #expect(throws: KedgeError.self) { try Subprocess(["/nowhere/kedge-test", "secret"]).run() }
        #expect(
            error?.description
                == """
                could not start program "/nowhere/kedge-test"
                code: not-found
                detail: The system said: No such file or directory (ENOENT).
                hint: Check that this path exists and is spelled right.
                """)
    }

    @Test("a child that outlives its time is killed")
    func timeout() {
        var sleeper = Subprocess(["sleep", "1000"])
        sleeper.timeout = .milliseconds(50)
        let error = #expect(throws: KedgeError.self) { try sleeper.run() }
        #expect(error?.code == .timeout)
    }

    @Test("a request to stop ends the wait for a child")
    func interruption() {
        var sleeper = Subprocess(["sleep", "1000"])
        let interruption = Interruption()
        sleeper.interruption = interruption
        interruption.request(signal: SIGTERM)
        let error = #expect(throws: KedgeError.self) { try sleeper.run() }
        #expect(error?.code == .interrupted)
    }

    @Test("a child that writes without end is killed at the limit")
    func limit() throws {
        var yes = Subprocess(["yes"])
        yes.outputLimitBytes = 100_000
        let error = #expect(throws: KedgeError.self) { try yes.run() }
        #expect(error?.code == .inputOutput)
        var exact = Subprocess(["head", "-c", "100000", "/dev/zero"])
        exact.outputLimitBytes = 100_000
        #expect(try exact.run().output.count == 100_000)
    }

    @Test("a grandchild that keeps the output open does not keep us waiting")
    func grandchild() throws {
        var shell = Subprocess(["sh", "-c", "sleep 20 & echo $!"])
        shell.timeout = .seconds(10)
        let outcome = try shell.run()
        #expect(outcome.status == .exited(0))
        let process = try #require(pid_t(outcome.outputText.dropLast()))
        kill(process, SIGKILL)
    }

    @Test("a started child is waited for within a time, and killed when it goes out of scope")
    func started() throws {
        var child = try Subprocess(["sleep", "1000"]).start(output: .discarded, errors: .discarded)
        #expect(try child.wait(timeout: .milliseconds(20)) == nil)
        child.kill(SIGINT)
        #expect(try child.wait() == .signalled(SIGINT))
        #expect(try child.wait() == .signalled(SIGINT))
        let process = try startAndForget()
        #expect(kill(process, 0) == -1 && errno == ESRCH)
    }

    private func startAndForget() throws -> pid_t {
        let child = try Subprocess(["sleep", "1000"]).start(output: .discarded, errors: .discarded)
        return child.id
    }
}
