// `kedge cat`.
import KedgeCore

/// The command line of `cat`.
enum CatCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "cat", summary: "print one repository object, opened",
        description: [
            "Checks, decrypts and decompresses one object of the repository and writes its content to standard output."
        ],
        arguments: [ArgumentSpecification("OBJECT", "The object's name below the repository.")])
}
