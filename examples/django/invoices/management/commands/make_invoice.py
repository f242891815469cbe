"""Make invoices and their jobs in one transaction: both are there, or neither."""

from django.core.management.base import BaseCommand
from django.db import connection, transaction

from invoices.jobs import send
from invoices.models import Invoice


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser) -> None:
        parser.add_argument("numbers", nargs="+")
        parser.add_argument("--roll-back", action="store_true")

    def handle(self, *, numbers, roll_back, **options) -> None:
        ids = {"organization_id": "acme", "actor_id": "ann"}
        with transaction.atomic():
            for number in numbers:
                Invoice.objects.create(number=number)
                job = send.new({**ids, "invoice": number}, conn=connection)
                self.stdout.write(f"enqueued {job.id} as task {job.native_id}")
            transaction.set_rollback(roll_back)
        if roll_back:
            self.stdout.write("rolled back: no invoice, and no job")
