"""The closed lists of PocketVQA: tasks, colours, shapes, words, and how much a question offers."""

SIZE = 192
"""Width and height of every picture, pixels."""

TASKS = (
    "colour",
    "shape",
    "count",
    "relation",
    "compare",
    "ocr",
    "chart",
    "needle",
    "multi",
    "photo",
)

COLOURS = {
    "red": (214, 38, 38),
    "green": (36, 150, 56),
    "blue": (38, 72, 214),
    "yellow": (246, 222, 44),
    "orange": (246, 138, 24),
    "purple": (128, 48, 168),
    "pink": (250, 150, 196),
    "cyan": (60, 208, 222),
    "white": (250, 250, 250),
    "black": (18, 18, 18),
}

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart")

PLURALS = {shape: f"{shape}es" if shape == "cross" else f"{shape}s" for shape in SHAPES}

CORNERS = ("top left", "top right", "bottom left", "bottom right")

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHARACTERS = LETTERS + "0123456789"
CODE_CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without the pairs that look alike in some fonts (I and 1, O and 0)."""

DIGITS = tuple("0123456789")

_WORD_LIST = """
ACT AGE AIR APPLE ARM ART BAG BALL BANK BEACH BIRD BLUE BOAT BOOK BOX BREAD BRIDGE BUS CAFE CAKE
CAR CARD CAT CHAIR CITY CLOCK CLOSED CLOUD COFFEE COLD CUP DANGER DAY DESK DOG DOOR EAST EXIT EYE
FARM FAST FIRE FISH FLAG FLOWER FOOD FREE FRUIT GAME GARDEN GATE GIFT GLASS GOLD GRASS GREEN HAND
HAT HEAT HELLO HELP HOME HORSE HOTEL HOUSE ICE INK IRON ISLAND JAM JOB JUICE KEY KING KITE LAKE
LAMP LEFT LEMON LIGHT LION LOVE LUNCH MAP MARKET MEAL MILK MONEY MOON MUSIC NAME NIGHT NORTH NOTE
NUMBER OFFICE OPEN ORANGE PAPER PARK PEN PIANO PLANT POST PRICE PUSH QUEEN QUIET RADIO RAIN RED
RICE RIVER ROAD ROCK ROOM ROSE SALE SALT SCHOOL SEA SHIP SHOP SILVER SKY SNOW SOUTH SPOON STAR
STATION STOP SUGAR SUMMER SUN TABLE TAXI TEA TICKET TIGER TIME TOWN TRAIN TREE VAN VIDEO WALL
WATER WEST WHITE WIND WINTER WOOD YELLOW ZEBRA ZERO ZOO
"""
WORDS = tuple(word for word in _WORD_LIST.split() if len(word) <= 6)

PHOTOS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "rocket": "rocket.jpg",
    "stars": "hubble_deep_field.jpg",
}
"""What a photograph shows -> its file in scikit-image's data folder."""

CONTENTS = ("nothing", *SHAPES, *CHARACTERS)
"""Classes of the per-cell content labels."""

TINTS = ("none", *COLOURS)
"""Classes of the per-cell colour labels."""
