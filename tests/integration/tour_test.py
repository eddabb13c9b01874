"""README.md is run: every `sh` block between the marks of the tour, in one shell, as a reader would type it.

What a block prints must hold the lines of the `text` block that follows it, in order; `...` stands for anything.
"""

import os
import re

from harness import cases, programs
from harness.programs import Program

SOURCE = os.environ["DATAWIRE_SOURCE"]
TOUR = re.compile(r"^## A tour.*?\n(.*?)^## ", re.S | re.M)
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.S | re.M)


def blocks(readme):
    """[(language, text)] of the tour."""
    return BLOCK.findall(TOUR.search(readme).group(1))


def shown(pattern):
    """A line of a text block as a regular expression: words in their order, `...` for anything."""
    return r"\s+".join(".*?".join(re.escape(part) for part in word.split("...")) for word in pattern.split())


class Tour(cases.TestCase):
    def test_every_block_of_the_tour_does_what_the_readme_says(self):
        with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
            steps = blocks(file.read())
        self.assertGreaterEqual(sum(language == "sh" for language, _ in steps), 6)
        script, expected, number = ["exec 2>&1\n"], {}, 0
        for language, text in steps:
            if language == "sh":
                number += 1
                script.append(f"echo '== block {number}'\n{text}")
            else:
                expected[number] = text.splitlines()
        path = os.path.join(self.scratch(), "tour.sh")
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(script) + "echo '== end'\n")
        folder = self.scratch("tmp")
        with Program("/bin/bash", path, cwd=SOURCE, label="tour", env={"TMPDIR": folder, "DW_TOUR_BIN": os.environ["DATAWIRE_BIN"]}) as program:
            program.wait(120)
            output = program.output()
        print(output, flush=True)
        parts = re.split(r"^== (?:block \d+|end)\n", output, flags=re.M)
        self.assertEqual(len(parts), number + 2, output)
        for block, lines in expected.items():
            rest = parts[block]
            for line in lines:
                match = re.search(shown(line), rest) if line.strip() not in ("", "...") else None
                if line.strip() in ("", "..."):
                    continue
                self.assertIsNotNone(match, f"block {block} prints no '{line}' there:\n{parts[block]}")
                rest = rest[match.end():]
        self.assertEqual([word for word in ("command not found", "No such file", "syntax error") if word in output], [])
        self.assertEqual(programs.leftovers(), {}, "the tour stops what it starts")


if __name__ == "__main__":
    cases.main()
